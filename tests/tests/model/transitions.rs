//! From every kind of entry to every other while the SMMU reads along, by the driver's plan; and the table in the driver's
//! documentation that says so.
//!
//! What an entry means is decoded by the model, which shares no bit with the driver. After every single store hardware may
//! combine all values that the words have had since the last sync: every combination is decoded, and the model looks on too.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use smmu::arch::context_descriptor::ContextDescriptor;
use smmu::arch::entry_update::{Entry, EntryUpdate, Meaning as Planned, Stage};
use tests::model::{Config, Law, Meaning};

use super::bench::{Bench, STREAM, put};
use super::entries::{Named, contexts, stream_table_entries};

/// The table, from the workspace's root.
const TABLE: &str = "smmu/src/arch/transitions.md";

/// The eight words of an entry in memory, and what hardware may hold of each.
struct Entered {
    memory: [u64; 8],
    held: [Vec<u64>; 8],
}

impl Entered {
    /// At rest. What is not relevant may be anything in hardware.
    fn at_rest(entry: &impl Entry) -> Self {
        let (memory, relevant) = (entry.words(), entry.relevant());
        let held = std::array::from_fn(|word| vec![memory[word], memory[word] ^ !relevant[word]]);
        let mut entered = Self { memory, held };
        entered.held.iter_mut().for_each(|values| values.dedup());
        entered
    }

    /// Stores a word, and shows `judge` everything that hardware may make of the entry then and could not before.
    fn store(&mut self, word: usize, value: u64, judge: &mut impl FnMut(&[u64; 8])) {
        if self.memory[word] == value {
            return;
        }
        self.memory[word] = value;
        let others = std::mem::replace(&mut self.held[word], vec![value]);
        self.combine(judge);
        self.held[word].extend(others);
    }

    /// Shows `judge` all combinations.
    fn combine(&self, judge: &mut impl FnMut(&[u64; 8])) {
        for mut number in 0..self.held.iter().map(Vec::len).product() {
            judge(&self.held.each_ref().map(|values| {
                let value = values[number % values.len()];
                number /= values.len();
                value
            }));
        }
    }

    fn sync(&mut self) {
        self.held = self.memory.map(|word| vec![word]);
    }
}

/// Follows one update store by store.
fn follow<E: Entry>(old: &Named<E>, new: &Named<E>, meaning: fn(&[u64; 8]) -> Meaning) {
    let update = EntryUpdate::new(&old.entry, &new.entry);
    let (before, after) = (meaning(&old.entry.words()), meaning(&new.entry.words()));
    let mut entered = Entered::at_rest(&old.entry);
    for Stage { words, sync, meaning: planned } in update.stages() {
        let mut judge = |words: &[u64; 8]| {
            let found = meaning(words);
            let through_invalid = found.is_invalid() && !update.is_hitless();
            assert!(
                found == before || found == after || through_invalid,
                "from {} to {}: hardware may take it for {found}",
                old.name,
                new.name
            );
        };
        (0..8).for_each(|word| entered.store(word, words[word], &mut judge));
        if *sync {
            entered.sync();
            let found = meaning(&entered.memory);
            let as_planned = match planned {
                Planned::Old => found == before,
                Planned::Invalid => found.is_invalid(),
                Planned::New => found == after,
            };
            assert!(as_planned, "from {} to {}: {found} is not {planned:?}", old.name, new.name);
        }
    }
    assert_eq!(entered.memory, new.entry.words(), "from {} to {}: nothing else is left", old.name, new.name);
    // Whatever hardware still holds of what it was not told about: the next update may rely on the rest.
    let relevant = new.entry.relevant();
    entered.combine(&mut |words| {
        assert_eq!(meaning(words), after);
        assert!((0..8).all(|word| (words[word] ^ entered.memory[word]) & relevant[word] == 0));
    });
}

#[test]
fn r14_no_store_of_a_stream_table_entry_makes_a_third_meaning() {
    let entries = stream_table_entries();
    for old in &entries {
        entries.iter().for_each(|new| follow(old, new, Meaning::of_ste));
    }
}

#[test]
fn r14_no_store_of_a_context_descriptor_makes_a_third_meaning() {
    let entries = contexts();
    for old in &entries {
        entries.iter().for_each(|new| follow(old, new, Meaning::of_cd));
    }
}

/// What the model has to say.
fn watched(bench: &Bench, from: &str, to: &str) {
    let violations = bench.model.take_violations();
    assert!(violations.is_empty(), "from {from} to {to}: {violations:?}");
}

#[test]
fn r14_the_model_sees_a_stream_table_entry_after_every_store() {
    let mut bench = Bench::new(Config::full());
    let entries = stream_table_entries();
    let cfgi = [0x03 | u64::from(STREAM) << 32, 1];
    for old in &entries {
        for new in &entries {
            bench.set_ste(STREAM, &old.entry.words());
            watched(&bench, "anything", old.name);
            for stage in EntryUpdate::new(&old.entry, &new.entry).stages() {
                for (word, value) in stage.words.iter().enumerate() {
                    put(&bench.streams, u64::from(STREAM) * 8 + word as u64, *value);
                    bench.model.check_entries();
                    watched(&bench, old.name, new.name);
                }
                if stage.sync {
                    bench.run(&[cfgi]);
                }
            }
            watched(&bench, old.name, new.name);
        }
    }
    bench.set_ste(STREAM, &[0; 8]);
}

#[test]
fn r14_the_model_sees_a_context_descriptor_after_every_store() {
    let mut bench = Bench::new(Config::full());
    let table = bench.buffer(4096);
    bench.set_ste(STREAM, &[table.physical().get() | 0xb, 0xd6, 0, 0]);
    let cfgi = [0x05 | u64::from(STREAM) << 32, 1];
    for old in &contexts() {
        for new in &contexts() {
            let mut carry_out = |from: &ContextDescriptor, to: &ContextDescriptor| {
                for stage in EntryUpdate::new(from, to).stages() {
                    for (word, value) in stage.words.iter().enumerate() {
                        put(&table, word as u64, *value);
                        bench.model.check_entries();
                    }
                    if stage.sync {
                        bench.run(&[cfgi]);
                    }
                }
                watched(&bench, old.name, new.name);
            };
            carry_out(&ContextDescriptor::INVALID, &old.entry);
            carry_out(&old.entry, &new.entry);
            carry_out(&new.entry, &ContextDescriptor::INVALID);
        }
    }
    bench.set_ste(STREAM, &[0; 8]);
}

/// The model does notice when the plan is not followed.
#[test]
fn an_update_without_a_sync_or_out_of_order_is_noticed() {
    let mut bench = Bench::new(Config::full());
    let entries = stream_table_entries();
    let find = |name: &str| entries.iter().find(|named| named.name == name).unwrap().entry;
    let cfgi = [0x03 | u64::from(STREAM) << 32, 1];
    let mut follow_badly = |old: &str, new: &str, skip_sync: bool| {
        bench.set_ste(STREAM, &find(old).words());
        let _ = bench.broken_laws();
        let update = EntryUpdate::new(&find(old), &find(new));
        let stages: Vec<_> = if skip_sync {
            update.stages().into()
        } else {
            update.stages().iter().rev().collect::<Vec<_>>().into_iter().copied().collect()
        };
        for stage in stages {
            for (word, value) in stage.words.iter().enumerate() {
                put(&bench.streams, u64::from(STREAM) * 8 + word as u64, *value);
            }
            bench.model.check_entries();
            if stage.sync && !skip_sync {
                bench.run(&[cfgi]);
            }
        }
        bench.broken_laws()
    };
    assert_eq!(follow_badly("bypass", "stage 1", true), [Law::LiveEntry]);
    assert_eq!(follow_badly("bypass", "stage 1", false), [Law::LiveEntry]);
    assert_eq!(follow_badly("stage 1", "nested, VMID 6", true), [Law::LiveEntry]);
    bench.set_ste(STREAM, &[0; 8]);
    let _ = bench.broken_laws();
}

/// One matrix: from the rows to the columns.
fn matrix<E: Entry>(entries: &[Named<E>]) -> String {
    let mut text = String::from("| | from, to |");
    (1..=entries.len()).for_each(|number| write!(text, " {number} |").unwrap());
    text.push_str("\n|--:|:--|");
    entries.iter().for_each(|_| text.push_str(":-:|"));
    text.push('\n');
    for (number, old) in (1..).zip(entries) {
        write!(text, "| {number} | {} |", old.name).unwrap();
        for new in entries {
            let update = EntryUpdate::new(&old.entry, &new.entry);
            let syncs = update.syncs();
            match (syncs, update.is_hitless()) {
                (0, _) => text.push_str(" |"),
                (_, true) => write!(text, " {syncs} |").unwrap(),
                (_, false) => write!(text, " *{syncs}* |").unwrap(),
            }
        }
        text.push('\n');
    }
    text
}

fn documentation() -> String {
    let (streams, contexts) = (stream_table_entries(), contexts());
    format!(
        "\
# Transitions

How many CMD_SYNCs it takes from one entry (the row) to another (the column) while devices go on. A plain number is a hitless
transition: transactions meet the old entry or the new one. With a number *in italics* there is no such way, because two words
would have to change at once or one kind of ATS would follow the other; they abort in between. Nothing is to be done where there is no number.

This table is made by the tests that prove it: `cargo test -p tests --test model transitions` fails if it is out of date, and
with `UPDATE_DOCS=1` writes it.

## Stream table entries

{}
Entries 4 to 6 lead to tables of one context, 7 to 9 to one table of 16. SHCFG is \"use incoming\" in all of them.

## Context descriptors

{}",
        matrix(&streams),
        matrix(&contexts)
    )
}

#[test]
fn the_table_of_transitions_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(TABLE);
    let text = documentation();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{TABLE} is out of date; UPDATE_DOCS=1 writes this:\n{text}");
}

/// What must be so, whatever the rest of the table says.
#[test]
fn what_can_be_hitless_is_and_nothing_else() {
    let entries = stream_table_entries();
    let update = |old: &str, new: &str| {
        let find =
            |name: &str| &entries.iter().find(|named| named.name == name).unwrap_or_else(|| panic!("{name}")).entry;
        let update = EntryUpdate::new(find(old), find(new));
        (update.is_hitless(), update.syncs())
    };
    let substreams = ["16 contexts, S1DSS abort", "16 contexts, S1DSS bypass", "16 contexts, S1DSS substream 0"];
    for Named { name, .. } in &entries {
        if !["invalid", "abort"].contains(name) {
            assert_eq!(update(name, "abort"), (true, 1), "{name}: abort is one store");
            assert_eq!(update("abort", name), (true, 2), "{name}: all but word 0 is prepared");
            assert_eq!(update("invalid", name), (true, 2), "{name}: attach is two CMD_SYNCs");
            assert_eq!(update(name, "invalid"), (true, 1), "{name}: detach is one");
        }
    }
    for old in substreams {
        substreams.iter().filter(|new| **new != old).for_each(|new| assert_eq!(update(old, new), (true, 1)));
        assert!(update("stage 1", old).0 && update(old, "stage 1").0, "S1DSS does not count without substreams");
    }
    assert_eq!(update("stage 1", "stage 1, other contexts"), (true, 1));
    assert_eq!(update("stage 1", "stage 1 with ATS"), (true, 1));
    assert_eq!(update("stage 1", "bypass"), (true, 1));
    assert_eq!(update("bypass", "stage 1"), (true, 2));
    assert_eq!(update("stage 2", "nested"), (true, 2));
    assert_eq!(update("nested", "stage 2"), (true, 1));
    assert_eq!(update("stage 1", "stage 2"), (false, 3), "the VMID and Config are in two words");
    assert_eq!(update("stage 2", "stage 2, VMID 6"), (false, 3), "so are the VMID and S2TTB");
    let (full, split) = ("nested with ATS", "nested with split-stage ATS");
    for (old, new) in [(full, split), (split, full)] {
        assert_eq!(update(old, new), (false, 3), "EATS never goes from 1 to 2 or back but by way of no ATS");
    }
    for ats in [full, split] {
        assert_eq!((update("nested", ats), update(ats, "nested")), ((true, 1), (true, 1)));
    }
}
