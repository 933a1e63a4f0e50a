//! Offsets and positions against literal numbers. Every field of every register is listed: one that is not fails.

extern crate std;

use std::format;

use tock_registers::debug::RegisterDebugInfo;

use super::*;

/// The upper and lower bit of a field with this unshifted mask.
fn bits(mask: u64, shift: usize) -> (u32, u32) {
    assert_eq!((mask + 1).count_ones(), 1, "a field has no holes");
    (shift as u32 + mask.count_ones() - 1, shift as u32)
}

macro_rules! assert_fields {
    ($($register:ident: $word:ty { $($field:ident $high:literal:$low:literal)* })*) => {
        $(
            $(
                let field = $register::$field;
                let name = format!("{}.{}", stringify!($register), stringify!($field));
                assert_eq!(bits(u64::from(field.mask), field.shift), ($high, $low), "{name}");
            )*
            let listed = [$(stringify!($field)),*];
            let defined = <$register::Register as RegisterDebugInfo<$word>>::field_names();
            assert_eq!(listed.as_slice(), defined, "fields of {}", stringify!($register));
        )*
    };
}

macro_rules! assert_offsets {
    ($($register:ident $offset:literal)*) => {
        $(assert_eq!(($register.offset(), $register.name()), ($offset, stringify!($register)));)*
    };
}

#[test]
fn r24_offsets() {
    assert_offsets! {
        IDR0 0x000 IDR1 0x004 IDR2 0x008 IDR3 0x00c IDR4 0x010 IDR5 0x014 IIDR 0x018 AIDR 0x01c
        CR0 0x020 CR0ACK 0x024 CR1 0x028 CR2 0x02c S2PII 0x030 STATUSR 0x040 GBPA 0x044 AGBPA 0x048
        IRQ_CTRL 0x050 IRQ_CTRLACK 0x054 GERROR 0x060 GERRORN 0x064
        GERROR_IRQ_CFG0 0x068 GERROR_IRQ_CFG1 0x070 GERROR_IRQ_CFG2 0x074
        STRTAB_BASE 0x080 STRTAB_BASE_CFG 0x088
        CMDQ_BASE 0x090 CMDQ_PROD 0x098 CMDQ_CONS 0x09c
        EVENTQ_BASE 0x0a0 EVENTQ_IRQ_CFG0 0x0b0 EVENTQ_IRQ_CFG1 0x0b8 EVENTQ_IRQ_CFG2 0x0bc
        PRIQ_BASE 0x0c0 PRIQ_IRQ_CFG0 0x0d0 PRIQ_IRQ_CFG1 0x0d8 PRIQ_IRQ_CFG2 0x0dc
        GATOS_CTRL 0x100 GATOS_SID 0x108 GATOS_ADDR 0x110 GATOS_PAR 0x118
        EVENTQ_PROD 0x100a8 EVENTQ_CONS 0x100ac PRIQ_PROD 0x100c8 PRIQ_CONS 0x100cc
    }
}

#[test]
fn r24_identification_fields() {
    assert_fields! {
        IDR0: u32 {
            S2P 0:0 S1P 1:1 TTF 3:2 COHACC 4:4 BTM 5:5 HTTU 7:6 DORMHINT 8:8 Hyp 9:9 ATS 10:10 NS1ATS 11:11
            ASID16 12:12 MSI 13:13 SEV 14:14 ATOS 15:15 PRI 16:16 VMW 17:17 VMID16 18:18 CD2L 19:19 VATOS 20:20
            TTENDIAN 22:21 ATSRECERR 23:23 STALL_MODEL 25:24 TERM_MODEL 26:26 ST_LEVEL 28:27 RME_IMPL 30:30
        }
        IDR1: u32 {
            SIDSIZE 5:0 SSIDSIZE 10:6 PRIQS 15:11 EVENTQS 20:16 CMDQS 25:21 ATTR_PERMS_OVR 26:26 ATTR_TYPES_OVR 27:27
            REL 28:28 QUEUES_PRESET 29:29 TABLES_PRESET 30:30 ECMDQ 31:31
        }
        IDR2: u32 { BA_VATOS 9:0 }
        IDR3: u32 {
            HAD 2:2 PBHA 3:3 XNX 4:4 PPS 5:5 MPAM 7:7 FWB 8:8 STT 9:9 RIL 10:10 BBML 12:11 E0PD 13:13 PTWNNC 14:14
            DPT 15:15 PASIDTT 16:16 EPAN 17:17 S1PI 18:18 S2PI 19:19 S2PO 20:20 THE 21:21 MTEPERM 22:22 AIE 23:23
        }
        IDR5: u32 { OAS 2:0 GRAN4K 4:4 GRAN16K 5:5 GRAN64K 6:6 DS 7:7 D128 8:8 VAX 11:10 STALL_MAX 31:16 }
        IIDR: u32 { Implementer 11:0 Revision 15:12 Variant 19:16 ProductID 31:20 }
        AIDR: u32 { ArchMinorRev 3:0 ArchMajorRev 7:4 }
    }
}

#[test]
fn r24_control_fields() {
    assert_fields! {
        CR0: u32 { SMMUEN 0:0 PRIQEN 1:1 EVENTQEN 2:2 CMDQEN 3:3 ATSCHK 4:4 VMW 8:6 DPT_WALK_EN 10:10 }
        CR1: u32 { QUEUE_IC 1:0 QUEUE_OC 3:2 QUEUE_SH 5:4 TABLE_IC 7:6 TABLE_OC 9:8 TABLE_SH 11:10 }
        CR2: u32 { E2H 0:0 RECINVSID 1:1 PTM 2:2 REC_CFG_ATS 3:3 }
        STATUSR: u32 { DORMANT 0:0 }
        GBPA: u32 {
            MemAttr 3:0 MTCFG 4:4 ALLOCCFG 11:8 SHCFG 13:12 PRIVCFG 17:16 INSTCFG 19:18 ABORT 20:20 UPDATE 31:31
        }
        IRQ_CTRL: u32 { GERROR_IRQEN 0:0 PRIQ_IRQEN 1:1 EVENTQ_IRQEN 2:2 }
        GERROR: u32 {
            CMDQ_ERR 0:0 EVENTQ_ABT_ERR 2:2 PRIQ_ABT_ERR 3:3 MSI_CMDQ_ABT_ERR 4:4 MSI_EVENTQ_ABT_ERR 5:5
            MSI_PRIQ_ABT_ERR 6:6 MSI_GERROR_ABT_ERR 7:7 SFM_ERR 8:8 CMDQP_ERR 9:9 DPT_ERR 10:10
        }
    }
}

#[test]
fn r24_memory_fields() {
    assert_fields! {
        IRQ_CFG0: u64 { ADDR 55:2 }
        IRQ_CFG1: u32 { DATA 31:0 }
        IRQ_CFG2: u32 { MemAttr 3:0 SH 5:4 LO 31:31 }
        STRTAB_BASE: u64 { ADDR 55:6 RA 62:62 }
        STRTAB_BASE_CFG: u32 { LOG2SIZE 5:0 SPLIT 10:6 FMT 17:16 }
        CMDQ_BASE: u64 { LOG2SIZE 4:0 ADDR 55:5 RA 62:62 }
        OUTPUT_QUEUE_BASE: u64 { LOG2SIZE 4:0 ADDR 55:5 WA 62:62 }
        CMDQ_PROD: u32 { WR 19:0 }
        CMDQ_CONS: u32 { RD 19:0 ERR 30:24 }
        OUTPUT_QUEUE_PROD: u32 { WR 19:0 OVFLG 31:31 }
        OUTPUT_QUEUE_CONS: u32 { RD 19:0 OVACKFLG 31:31 }
    }
}

#[test]
fn r24_atos_fields() {
    assert_fields! {
        GATOS_CTRL: u32 { RUN 0:0 }
        GATOS_SID: u64 { STREAMID 31:0 SUBSTREAMID 51:32 SSID_VALID 52:52 }
        GATOS_ADDR: u64 { HTTUI 6:6 InD 7:7 RnW 8:8 PnU 9:9 TYPE 11:10 ADDR 63:12 }
        GATOS_PAR: u64 { FAULT 0:0 REASON 2:1 SH 9:8 FAULTCODE 11:4 Size 11:11 ADDR 55:12 ATTR 63:56 }
    }
}

#[test]
fn codes_in_place() {
    assert_eq!(IDR0::TTF::AArch64.value, 0x8);
    assert_eq!(IDR0::TTENDIAN::Little.value, 0x40_0000);
    assert_eq!(IDR0::STALL_MODEL::StallForced.value, 0x200_0000);
    assert_eq!(IDR0::ST_LEVEL::TwoLevel.value, 0x800_0000);
    assert_eq!(IDR5::VAX::Bits52.value, 0x400);
    assert_eq!(IIDR::Implementer::Arm.value, 0x43b);
    assert_eq!(GBPA::PRIVCFG::Privileged.value, 0x3_0000);
    assert_eq!(GBPA::INSTCFG::Data.value, 0x8_0000);
    assert_eq!(STRTAB_BASE_CFG::SPLIT::Bits8.value, 0x200);
    assert_eq!(STRTAB_BASE_CFG::FMT::TwoLevel.value, 0x1_0000);
    let write_back = CR1::QUEUE_IC::WriteBack
        + CR1::QUEUE_OC::WriteBack
        + CR1::QUEUE_SH::InnerShareable
        + CR1::TABLE_IC::WriteBack
        + CR1::TABLE_OC::WriteBack
        + CR1::TABLE_SH::InnerShareable;
    assert_eq!(write_back.value, 0xd75);
    assert_eq!((CR1::TABLE_IC::WriteThrough + CR1::TABLE_SH::OuterShareable).value, 0x880);
}

#[test]
fn r12_error_code_is_no_part_of_the_consumer_index() {
    let value = CMDQ_CONS.value(0x7f0f_ffff);
    assert_eq!(value.read(CMDQ_CONS::RD), 0xf_ffff);
    assert_eq!(value.read(CMDQ_CONS::ERR), 0x7f);
    assert_eq!(CMDQ_CONS.value(0x0100_0005).read(CMDQ_CONS::RD), 5);
}

#[test]
fn r20_stream_id_size_has_six_bits_and_shcfg_one_means_incoming() {
    assert_eq!(IDR1.value(0x20).read(IDR1::SIDSIZE), 32);
    assert_eq!(GBPA::SHCFG::UseIncoming.value, 0x1000);
}

#[test]
fn a_register_shows_its_name() {
    assert_eq!(format!("{CR0ACK}"), "CR0ACK");
    assert_eq!(format!("{EVENTQ_PROD:?}"), "EVENTQ_PROD at 0x100a8");
}
