//! Holds ctrace's BTF reader against bpftool on the running kernel, or on the BTF file that
//! `CTRACE_BTF` names.

use std::{
    collections::{HashMap, HashSet},
    fs,
    process::Command,
};

use ctrace::kernel::btf::{ArgType, Btf, KERNEL_BTF};
use serde::Deserialize;

#[derive(Deserialize)]
struct Dump {
    types: Vec<Type>,
}

#[derive(Deserialize)]
struct Type {
    id: u32,
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    encoding: String,
    size: Option<u32>,
    type_id: Option<u32>,
    nr_elems: Option<u32>,
    #[serde(default)]
    members: Vec<Member>,
    #[serde(default)]
    values: Vec<Value>,
    #[serde(default)]
    params: Vec<Param>,
}

#[derive(Deserialize)]
struct Member {
    name: String,
    type_id: u32,
    bits_offset: u32,
    #[serde(default)]
    bitfield_size: u32,
}

#[derive(Deserialize)]
struct Value {
    name: String,
    val: serde_json::Number,
}

#[derive(Deserialize)]
struct Param {}

/// A member anywhere below a struct.
struct Leaf {
    path: String,
    bits: u32,
    type_id: u32,
    bitfield: bool,
}

impl Dump {
    fn ty(&self, id: u32) -> &Type {
        let ty = &self.types[id as usize - 1];
        assert_eq!(ty.id, id);
        ty
    }

    fn named<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Type> {
        self.types.iter().filter(move |ty| ty.kind == kind && ty.name != "(anon)")
    }

    fn resolve(&self, mut id: u32) -> &Type {
        loop {
            let ty = self.ty(id);
            match ty.kind.as_str() {
                "TYPEDEF" | "CONST" | "VOLATILE" | "RESTRICT" | "TYPE_TAG" => {
                    id = ty.type_id.expect("a typedef or qualifier of something");
                }
                _ => return ty,
            }
        }
    }

    fn size(&self, id: u32) -> u32 {
        let ty = self.resolve(id);
        match ty.kind.as_str() {
            "PTR" => 8,
            "ARRAY" => ty.nr_elems.expect("length") * self.size(ty.type_id.expect("element type")),
            _ => ty.size.expect("size"),
        }
    }

    fn flatten(&self, id: u32, prefix: &str, base: u32, out: &mut Vec<Leaf>) {
        for member in &self.resolve(id).members {
            let bits = base + member.bits_offset;
            if member.name == "(anon)" {
                self.flatten(member.type_id, prefix, bits, out);
                continue;
            }
            let path = format!("{prefix}{}", member.name);
            self.flatten(member.type_id, &format!("{path}."), bits, out);
            let bitfield = member.bitfield_size != 0;
            out.push(Leaf { path, bits, type_id: member.type_id, bitfield });
        }
    }
}

/// The reader and bpftool's view of the same bytes; `None` where they cannot be had.
fn both() -> Option<(Btf, Dump)> {
    let path = std::env::var("CTRACE_BTF").unwrap_or_else(|_| KERNEL_BTF.to_owned());
    let data = match fs::read(&path) {
        Ok(data) => data,
        Err(error) => {
            println!("skipped: {path}: {error}");
            return None;
        }
    };
    let output = match Command::new("bpftool").args(["btf", "dump", "file", &path, "-j"]).output() {
        Ok(output) if output.status.success() => output.stdout,
        Ok(output) => {
            println!("skipped: bpftool: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Err(error) => {
            println!("skipped: bpftool: {error}");
            return None;
        }
    };
    let dump = serde_json::from_slice(&output).expect("bpftool's JSON");
    Some((Btf::parse(data).expect("the kernel's BTF"), dump))
}

#[test]
fn agrees_with_bpftool() {
    let Some((btf, dump)) = both() else { return };
    members(&btf, &dump);
    sizes(&btf, &dump);
    enumerators(&btf, &dump);
    prototypes(&btf, &dump);
}

fn members(btf: &Btf, dump: &Dump) {
    for name in [
        "task_struct",
        "mm_struct",
        "mem_cgroup",
        "cgroup",
        "kernfs_node",
        "signal_struct",
        "request",
        "bio",
        "cred",
        "page_counter",
        "oom_control",
        "pid",
        "css_set",
        "nsproxy",
    ] {
        let mut seen = HashSet::new();
        for ty in dump.named("STRUCT").filter(|ty| ty.name == name) {
            let mut leaves = Vec::new();
            dump.flatten(ty.id, "", 0, &mut leaves);
            for Leaf { path, bits, type_id, bitfield } in leaves {
                let expected = (!bitfield).then_some((bits / 8, dump.size(type_id)));
                let ours = btf.offset(name, &path).zip(btf.member_size(name, &path));
                // Of several structs with one name the first that has the member answers.
                if seen.insert(path.clone()) {
                    assert_eq!(ours, expected, "{name}.{path}");
                }
            }
        }
        println!("{name}: {} members", seen.len());
    }
}

fn sizes(btf: &Btf, dump: &Dump) {
    let mut first = HashMap::new();
    for ty in &dump.types {
        if matches!(ty.kind.as_str(), "INT" | "STRUCT" | "UNION" | "ENUM" | "ENUM64" | "TYPEDEF") {
            first.entry(&ty.name).or_insert(ty);
        }
    }
    for (name, ty) in first {
        if name != "(anon)" && ty.kind != "TYPEDEF" {
            assert_eq!(btf.size_of(name), ty.size, "{name}");
        }
    }
}

fn enumerators(btf: &Btf, dump: &Dump) {
    let mut seen = HashSet::new();
    for ty in &dump.types {
        for value in &ty.values {
            if !seen.insert(&value.name) {
                continue;
            }
            let mut expected =
                value.val.as_i64().or(value.val.as_u64().map(|val| val as i64)).expect("64 bits");
            // bpftool 7.1 prints unsigned 32-bit values extended by their sign.
            if ty.kind == "ENUM" && ty.encoding == "UNSIGNED" {
                expected = i64::from(expected as u32);
            }
            assert_eq!(btf.enum_value(&value.name), Some(expected), "{}", value.name);
        }
    }
    println!("{} enumerators", seen.len());
}

fn prototypes(btf: &Btf, dump: &Dump) {
    let mut tracepoints = 0;
    for ty in dump.named("TYPEDEF") {
        assert!(btf.typedef_id(&ty.name).is_some(), "{}", ty.name);
        let Some(name) = ty.name.strip_prefix("btf_trace_") else { continue };
        let pointer = dump.resolve(ty.id);
        let proto = dump.ty(pointer.type_id.expect("a pointer to a prototype"));
        let ours = btf.tracepoint(name).unwrap_or_else(|| panic!("no tracepoint {name}"));
        assert_eq!(ours.args.len(), proto.params.len() - 1, "{name}");
        assert_eq!(ours.ret, ArgType::Void, "{name}");
        tracepoints += 1;
    }
    let mut first = HashMap::new();
    for ty in dump.named("FUNC") {
        first.entry(&ty.name).or_insert(ty);
    }
    println!("{tracepoints} tracepoints, {} functions", first.len());
    assert!(tracepoints > 0);
    for (name, ty) in first {
        assert_eq!(btf.func_id(name), Some(ty.id), "{name}");
        let params = dump.ty(ty.type_id.expect("a prototype")).params.len();
        assert_eq!(btf.function(name).map(|proto| proto.args.len()), Some(params), "{name}");
    }
}
