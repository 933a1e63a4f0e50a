//! apt with folders of its own: it shares the system's mirrors, proxies and keys, and writes nowhere else.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{PrivateError, at};

/// At most so many mirrors are tried.
const MOST_MIRRORS: usize = 3;

/// A distribution whose packages can be used.
struct Distribution {
    /// Its `ID` in /etc/os-release.
    identifier: &'static str,
    name: &'static str,
    /// Where its mirrors keep releases with a recent QEMU; the first that works is taken. A release that another one in
    /// front of it completes is the one to prefer.
    suites: &'static [&'static [&'static str]],
    components: &'static str,
    keyring: &'static str,
}

const DISTRIBUTIONS: [Distribution; 2] = [
    Distribution {
        identifier: "debian",
        name: "Debian",
        suites: &[&["trixie", "trixie-backports"], &["sid"]],
        components: "main",
        keyring: "debian-archive-keyring",
    },
    Distribution {
        identifier: "ubuntu",
        name: "Ubuntu",
        suites: &[&["devel"]],
        components: "main universe",
        keyring: "ubuntu-archive-keyring",
    },
];

/// apt, set up to work in one folder.
pub(super) struct Apt<'a> {
    folder: &'a Path,
    /// Keeps other processes out, also while a child outlives this process.
    lock: &'a File,
}

/// A place where packages can be had from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// The lines of sources.list.
    lines: String,
    /// The suite to prefer.
    preferred: Option<&'static str>,
    /// What people call it.
    name: String,
}

impl<'a> Apt<'a> {
    /// apt that works in `folder`, whose lock is held through `lock`.
    pub(super) fn new(folder: &'a Path, lock: &'a File) -> Self {
        Self { folder, lock }
    }

    /// Where the packages are put that it downloads.
    pub(super) fn archives(&self) -> PathBuf {
        self.folder.join("cache/archives")
    }

    /// The places to try, the best first.
    pub(super) fn sources() -> Result<Vec<Source>, PrivateError> {
        let release = os_release(&fs::read_to_string("/etc/os-release").unwrap_or_default());
        let is_named = |distribution: &&Distribution| {
            let like = release.get("ID_LIKE").map(String::as_str).unwrap_or_default();
            let identifier = release.get("ID").map(String::as_str).unwrap_or_default();
            like.split_whitespace().chain([identifier]).any(|name| name == distribution.identifier)
        };
        let distribution = DISTRIBUTIONS.iter().rfind(is_named).ok_or(PrivateError::Unsupported)?;
        if ["apt-get", "dpkg", "dpkg-deb"].iter().any(|tool| which::which(tool).is_err()) {
            return Err(PrivateError::Unsupported);
        }
        let architecture = output(Command::new("dpkg").arg("--print-architecture")).unwrap_or_default();
        let targets = output(Command::new("apt-get").args([
            "indextargets",
            "--no-release-info",
            "--format",
            "$(RELEASE) $(COMPONENT) $(REPO_URI)",
            "Created-By: Packages",
        ]));
        let codename = release.get("VERSION_CODENAME").map(String::as_str).unwrap_or_default();
        let mirrors = mirrors(&targets.unwrap_or_default(), codename);
        if mirrors.is_empty() {
            return Err(PrivateError::NoMirror { distribution: distribution.name });
        }
        let all = mirrors.iter().flat_map(|mirror| {
            distribution.suites.iter().map(|suites| Source::new(distribution, suites, mirror, architecture.trim()))
        });
        Ok(all.collect())
    }

    /// Takes the packages from `source` from now on.
    pub(super) fn configure(&self, source: &Source) -> Result<(), PrivateError> {
        for folder in ["lists/partial", "cache/archives/partial", "empty"] {
            let folder = self.folder.join(folder);
            fs::create_dir_all(&folder).map_err(at(&folder))?;
        }
        let files = [("sources.list", &source.lines), ("status", &String::new())];
        for (name, contents) in files.into_iter().chain([("apt.conf", &self.configuration(source))]) {
            let path = self.folder.join(name);
            fs::write(&path, contents).map_err(at(&path))?;
        }
        Ok(())
    }

    /// The configuration that apt reads after the system's own.
    fn configuration(&self, source: &Source) -> String {
        let folder = self.folder.display();
        let preferred = source.preferred.map(|suite| format!("APT::Default-Release \"{suite}\";\n"));
        format!(
            "// Hooks of the system's configuration could touch the system.\n\
             #clear APT::Update;\n\
             #clear DPkg;\n\
             APT::Update::Error-Mode \"any\";\n\
             Dir::State \"{folder}\";\n\
             Dir::State::lists \"{folder}/lists\";\n\
             Dir::State::status \"{folder}/status\";\n\
             Dir::Cache \"{folder}/cache\";\n\
             Dir::Cache::archives \"{folder}/cache/archives\";\n\
             Dir::Etc::sourcelist \"{folder}/sources.list\";\n\
             Dir::Etc::sourceparts \"{folder}/empty\";\n\
             Dir::Etc::preferences \"{folder}/empty/preferences\";\n\
             Dir::Etc::preferencesparts \"{folder}/empty\";\n\
             APT::Install-Recommends \"false\";\n\
             APT::Install-Suggests \"false\";\n\
             APT::Sandbox::User \"root\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::Retries \"2\";\n\
             {}",
            preferred.unwrap_or_default()
        )
    }

    /// The command `apt-get ARGUMENTS`. It holds the lock by its standard input.
    pub(super) fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Command, PrivateError> {
        let lock = self.lock.try_clone().map_err(at(self.folder))?;
        let mut command = Command::new("apt-get");
        command.arg("--config-file").arg(self.folder.join("apt.conf")).args(["--quiet=2", "--yes"]).args(arguments);
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::from(lock));
        Ok(command)
    }
}

impl Source {
    fn new(distribution: &Distribution, suites: &[&'static str], mirror: &str, architecture: &str) -> Self {
        let keyring = ["gpg", "pgp"]
            .map(|extension| format!("/usr/share/keyrings/{}.{extension}", distribution.keyring))
            .into_iter()
            .find(|path| Path::new(path).is_file());
        // Without its keyring, what counts is whom the system's apt trusts.
        let signed_by = keyring.map(|path| format!(" signed-by={path}")).unwrap_or_default();
        let line = |suite: &&str| {
            let components = distribution.components;
            format!("deb [arch={architecture} target=Packages{signed_by}] {mirror} {suite} {components}\n")
        };
        Self {
            lines: suites.iter().map(line).collect(),
            preferred: if suites.len() > 1 { suites.last().copied() } else { None },
            name: format!("{mirror} ({})", suites.join(", ")),
        }
    }

    /// What people call it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// The `KEY=value` lines of /etc/os-release.
fn os_release(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect()
}

/// Mirrors of whole releases among apt's index targets, given as lines of release, component and address; those of the
/// release `codename` come first.
fn mirrors(targets: &str, codename: &str) -> Vec<String> {
    let words = targets.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()?, words.next()?))
    });
    // Security and update suites lie on other mirrors, or on the same one again.
    let whole = words.filter(|(release, component, _)| *component == "main" && !release.contains(['-', '/']));
    let (own, others): (Vec<_>, Vec<_>) = whole.partition(|(release, ..)| *release == codename);
    let mut mirrors: Vec<String> = Vec::new();
    for (.., address) in own.into_iter().chain(others) {
        if mirrors.len() < MOST_MIRRORS && !address.starts_with("cdrom:") && !mirrors.iter().any(|m| m == address) {
            mirrors.push(address.to_owned());
        }
    }
    mirrors
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_of_whole_releases_are_found() {
        let targets = "stable main http://b.invalid/other\n\
                       bookworm main http://a.invalid/debian/\n\
                       bookworm main http://a.invalid/debian/\n\
                       bookworm contrib http://c.invalid/debian\n\
                       bookworm-security main http://d.invalid/security\n\
                       bullseye/updates main http://d.invalid/security\n\
                       bookworm main cdrom:[disc]/\n";
        assert_eq!(mirrors(targets, "bookworm"), ["http://a.invalid/debian/", "http://b.invalid/other"]);
        assert!(mirrors("", "bookworm").is_empty());
    }

    #[test]
    fn the_system_s_description_is_understood() {
        let release = os_release("ID=debian\nVERSION_CODENAME=trixie\nPRETTY_NAME=\"Debian GNU/Linux\"\n\n");
        assert_eq!(release["ID"], "debian");
        assert_eq!(release["PRETTY_NAME"], "Debian GNU/Linux");
    }

    #[test]
    fn the_last_suite_is_preferred_over_the_one_it_completes() {
        let [debian, ubuntu] = &DISTRIBUTIONS;
        let source = Source::new(debian, debian.suites[0], "http://a.invalid/debian/", "amd64");
        assert_eq!(source.preferred, Some("trixie-backports"));
        assert_eq!(source.lines.lines().count(), 2);
        assert!(source.lines.lines().all(|line| line.starts_with("deb [arch=amd64 target=Packages")));
        assert!(source.lines.ends_with("] http://a.invalid/debian/ trixie-backports main\n"));
        assert_eq!(Source::new(ubuntu, ubuntu.suites[0], "http://a.invalid", "arm64").preferred, None);
    }

    #[test]
    fn apt_writes_into_its_own_folder_alone() {
        let folder = tempfile::tempdir().unwrap();
        let lock = File::create(folder.path().join("lock")).unwrap();
        let source = Source::new(&DISTRIBUTIONS[0], &["sid"], "http://a.invalid", "amd64");
        let apt = Apt::new(folder.path(), &lock);
        apt.configure(&source).unwrap();
        let configuration = fs::read_to_string(folder.path().join("apt.conf")).unwrap();
        let folders = configuration.lines().filter(|line| line.starts_with("Dir::"));
        let own = format!(" \"{}", folder.path().display());
        assert!(folders.clone().count() > 0 && folders.clone().all(|line| line.contains(&own)));
        assert!(!configuration.contains("Default-Release"));
        assert!(folder.path().join("cache/archives/partial").is_dir());
    }
}
