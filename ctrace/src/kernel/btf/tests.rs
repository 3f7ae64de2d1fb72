//! A small blob assembled by hand, and hostile ones. `tests/btf.rs` holds the reader against
//! bpftool on the running kernel.

use proptest::{collection::vec, prelude::*};

use super::*;

/// Assembles BTF: strings, then types in the order they are added.
#[derive(Default)]
struct Blob {
    types: Vec<u8>,
    strings: Vec<u8>,
}

impl Blob {
    fn new() -> Self {
        Self { types: Vec::new(), strings: vec![0] }
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(text.bytes().chain([0]));
        at
    }

    fn words(&mut self, words: &[u32]) {
        self.types.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    }

    fn add(&mut self, name: &str, kind: Kind, flag: bool, vlen: u32, size_or_type: u32) {
        let name = self.string(name);
        let info = u32::from(flag) << 31 | (kind as u32 + 1) << 24 | vlen;
        self.words(&[name, info, size_or_type]);
    }

    fn entry(&mut self, name: &str, rest: &[u32]) {
        let name = self.string(name);
        self.words(&[name]);
        self.words(rest);
    }

    fn build(&self) -> Vec<u8> {
        let mut data = Vec::new();
        data.extend(0xeb9f_u16.to_ne_bytes());
        data.extend([1, 0]);
        let types = self.types.len() as u32;
        for word in [24, 0, types, types, self.strings.len() as u32] {
            data.extend(word.to_ne_bytes());
        }
        data.extend(&self.types);
        data.extend(&self.strings);
        data
    }
}

const SIGNED: u32 = 1 << 24;

fn sample() -> Vec<u8> {
    let mut b = Blob::new();
    b.add("int", Kind::Int, false, 0, 4); // 1
    b.words(&[SIGNED | 32]);
    b.add("", Kind::Union, false, 2, 8); // 2
    b.entry("left", &[1, 0]);
    b.entry("right", &[1, 0]);
    b.add("counter", Kind::Struct, false, 1, 16); // 3
    b.entry("value", &[1, 64]);
    b.add("counter_t", Kind::Typedef, false, 0, 3); // 4
    b.add("", Kind::Const, false, 0, 4); // 5
    b.add("", Kind::Array, false, 0, 0); // 6: counter_t[3]
    b.words(&[5, 1, 3]);
    b.add("task", Kind::Struct, true, 6, 100); // 7
    b.entry("id", &[1, 0]);
    b.entry("", &[2, 32]);
    b.entry("flag", &[1, 1 << 24 | 65]);
    b.entry("usage", &[5, 128]);
    b.entry("all", &[6, 256]);
    b.entry("next", &[8, 640]);
    b.add("", Kind::Ptr, false, 0, 7); // 8
    b.add("task", Kind::Struct, false, 1, 4); // 9: a second one of the same name
    b.entry("other", &[1, 0]);
    b.add("", Kind::Enum, true, 2, 4); // 10
    b.entry("MINUS", &[u32::MAX]);
    b.entry("TWO", &[2]);
    b.add("big", Kind::Enum64, false, 1, 8); // 11
    b.entry("HIGH", &[5, 1]);
    b.add("", Kind::Ptr, false, 0, 0); // 12: void *
    b.add("", Kind::FuncProto, false, 4, 0); // 13
    b.entry("", &[12]);
    b.entry("", &[8]);
    b.entry("", &[1]);
    b.entry("", &[11]);
    b.add("", Kind::Ptr, false, 0, 13); // 14
    b.add("btf_trace_hit", Kind::Typedef, false, 0, 14); // 15
    b.add("task", Kind::Func, false, 0, 13); // 16
    b.add("loop", Kind::Typedef, false, 0, 18); // 17
    b.add("", Kind::Const, false, 0, 17); // 18
    b.add("cycle", Kind::Struct, false, 2, 4); // 19: contains itself, twice
    b.entry("", &[19, 0]);
    b.entry("", &[19, 0]);
    b.build()
}

#[test]
fn members() {
    let btf = Btf::parse(sample()).unwrap();
    let offset = |path| btf.offset("task", path);
    assert_eq!(offset("id"), Some(0));
    assert_eq!(offset("right"), Some(4), "through an anonymous union");
    assert_eq!(offset("flag"), None, "a bitfield");
    assert_eq!(offset("usage"), Some(16));
    assert_eq!(offset("usage.value"), Some(24), "through const, typedef and struct");
    assert_eq!(offset("next"), Some(80));
    assert_eq!(offset("next.id"), None, "a pointer is not followed");
    assert_eq!(offset("all.value"), None, "an array is not entered");
    assert_eq!(offset("other"), Some(0), "the second struct of this name has it");
    assert_eq!(offset(""), None);
    assert_eq!(offset("usage."), None);
    assert_eq!(btf.offset("counter_t", "value"), Some(8));
    assert_eq!(btf.offset("cycle", "x"), None);
    assert_eq!(btf.offset("loop", "x"), None);
    assert_eq!(btf.offset("missing", "x"), None);
}

#[test]
fn sizes_and_names() {
    let btf = Btf::parse(sample()).unwrap();
    assert_eq!(btf.size_of("task"), Some(100));
    assert_eq!(btf.size_of("counter_t"), Some(16));
    assert_eq!(btf.size_of("big"), Some(8));
    assert_eq!(btf.size_of("btf_trace_hit"), Some(8));
    assert_eq!(btf.size_of("loop"), None);
    assert_eq!(btf.member_size("task", "all"), Some(48));
    assert_eq!(btf.member_size("task", "next"), Some(8));
    assert_eq!(btf.member_type_name("task", "all").as_deref(), Some("counter_t"));
    assert_eq!(btf.member_type_name("task", "id").as_deref(), Some("int"));
    assert_eq!(btf.member_type_name("task", "next"), None);
}

#[test]
fn enumerators() {
    let btf = Btf::parse(sample()).unwrap();
    assert_eq!(btf.enum_value("MINUS"), Some(-1));
    assert_eq!(btf.enum_value("TWO"), Some(2));
    assert_eq!(btf.enum_value("HIGH"), Some(0x1_0000_0005));
    assert_eq!(btf.enum_value("TW"), None);
}

#[test]
fn prototypes() {
    let btf = Btf::parse(sample()).unwrap();
    let args = vec![
        ArgType::PointerTo("task".into()),
        ArgType::Integer { size: 4, signed: true },
        ArgType::Enum { size: 8 },
    ];
    assert_eq!(btf.tracepoint("hit"), Some(Prototype { args, ret: ArgType::Void }));
    assert_eq!(btf.tracepoint("miss"), None);
    assert_eq!(btf.function("task").unwrap().args.len(), 4);
    assert_eq!(btf.func_id("task"), Some(16));
    assert_eq!(btf.typedef_id("btf_trace_hit"), Some(15));
    assert_eq!(btf.func_id("counter"), None);
}

#[test]
fn refusals() {
    assert!(matches!(Btf::parse(Vec::new()), Err(BtfError::NotBtf)));
    let mut short = sample();
    short.truncate(100);
    assert!(matches!(Btf::parse(short), Err(BtfError::Section)));
    let mut blob = Blob::new();
    blob.words(&[0, 31 << 24, 0]);
    let refused = Btf::parse(blob.build());
    assert!(matches!(refused, Err(BtfError::UnknownKind { id: 1, kind: 31 })));
    let mut blob = Blob::new();
    blob.add("cut", Kind::Struct, false, 1, 4);
    assert!(matches!(Btf::parse(blob.build()), Err(BtfError::Truncated { id: 1 })));
    assert_eq!(Btf::parse(Blob::new().build()).unwrap().size_of("int"), None);
}

fn ask_everything(data: Vec<u8>) {
    let Ok(btf) = Btf::parse(data) else { return };
    for ty in ["task", "counter_t", "loop", "cycle", "int", "big", "task_struct", "hit"] {
        for path in ["id", "right", "flag", "usage.value", "all", "x", "mm", "signal.rlim"] {
            btf.offset(ty, path);
            btf.member_size(ty, path);
            btf.member_type_name(ty, path);
        }
        btf.size_of(ty);
        btf.tracepoint(ty);
        btf.function(ty);
    }
    btf.enum_value("HIGH");
    btf.enum_value("nothing");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(mut data in vec(any::<u8>(), 0..200), types in 0..200_u32) {
        ask_everything(data.clone());
        let header = Blob::new().build();
        data.splice(0..0, header[..24].iter().copied());
        data[12..16].copy_from_slice(&types.to_ne_bytes());
        ask_everything(data);
    }

    #[test]
    fn mutated_blob_never_panics(hits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut data = sample();
        for (at, value) in hits {
            let at = at.index(data.len());
            data[at] = value;
        }
        ask_everything(data);
    }

    #[test]
    fn mutated_words_never_panic(at in 6_usize..100, value in 0..40_u32) {
        let mut data = sample();
        data[at * 4..][..4].copy_from_slice(&value.to_ne_bytes());
        ask_everything(data);
    }
}

#[test]
fn mutated_kernel_never_panics() {
    let Ok(kernel) = fs::read(KERNEL_BTF) else {
        println!("skipped: no {KERNEL_BTF}");
        return;
    };
    // A fixed sequence of places and values: each round costs a copy of the whole blob.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..24 {
        let mut data = kernel.clone();
        for _ in 0..64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 20) as usize % data.len();
            data[at] = (state >> 8) as u8;
        }
        ask_everything(data);
    }
}
