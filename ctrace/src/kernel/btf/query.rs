//! Questions to a BTF blob: offsets, sizes, enumerators, prototypes.

use super::{Btf, Kind, Type};

/// What a function or a tracepoint takes and gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prototype {
    /// The arguments, first to last.
    pub args: Vec<ArgType>,
    /// The type of the return value.
    pub ret: ArgType,
}

/// The type of an argument, with typedefs and qualifiers looked through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgType {
    /// A pointer to the struct or union of this name.
    PointerTo(String),
    /// A pointer to anything else.
    Pointer,
    /// An integer, a character or a `bool`.
    Integer {
        /// Size in bytes.
        size: u32,
        /// Whether it is signed.
        signed: bool,
    },
    /// An enum.
    Enum {
        /// Size in bytes.
        size: u32,
    },
    /// No type: a `void` return, or the `...` at the end of a variadic function.
    Void,
    /// Anything else, such as a struct by value.
    Other,
}

/// A member found by name.
struct Member {
    /// Offset in bits from the start of the outermost type.
    bits: u32,
    /// The member's type id.
    ty: u32,
    bitfield: bool,
}

/// Links of a chain of typedefs and qualifiers followed before it counts as a cycle.
const MAX_CHAIN: usize = 64;
/// Members looked at before a question is given up: far above any kernel struct, and enough to
/// end a search through anonymous structs that contain each other.
const MAX_VISITS: u32 = 1 << 16;
/// Anonymous structs inside each other. Deeper means that one contains itself.
const MAX_DEPTH: u32 = 16;

impl Btf {
    /// Offset in bytes of a member of the struct, union or typedef `ty`.
    ///
    /// `path` is a member's name, or several joined by dots that go through embedded (not
    /// pointed-to) structs: `("mem_cgroup", "memory.usage")`. Anonymous members are looked
    /// through. `None` where there is no such member or it is a bitfield. Of several types with
    /// the same name the first that has the member answers.
    pub fn offset(&self, ty: &str, path: &str) -> Option<u32> {
        self.member(ty, path).map(|(offset, _)| offset)
    }

    /// Size in bytes of a type: struct, union, enum, integer or typedef.
    pub fn size_of(&self, ty: &str) -> Option<u32> {
        self.named(ty).filter(|ty| ty.kind != Kind::Func).find_map(|ty| self.size(ty.id))
    }

    /// Size in bytes of a member, the whole array where it is one. `path` as in [`Btf::offset`].
    pub fn member_size(&self, ty: &str, path: &str) -> Option<u32> {
        self.size(self.member(ty, path)?.1)
    }

    /// The name of a member's type as its declaration has it (`percpu_counter`, `atomic_long_t`),
    /// an array's element for an array. `None` for pointers and for types without a name. `path`
    /// as in [`Btf::offset`].
    pub fn member_type_name(&self, ty: &str, path: &str) -> Option<String> {
        let mut id = self.member(ty, path)?.1;
        for _ in 0..MAX_CHAIN {
            let ty = self.ty(id)?;
            id = match ty.kind {
                Kind::Const | Kind::Volatile | Kind::Restrict | Kind::TypeTag => ty.size_or_type,
                Kind::Array => self.word(ty.data)?,
                _ => return self.name(ty),
            };
        }
        None
    }

    /// The value of an enumerator, by its own name over all enums; the first enum that has it
    /// answers. Unsigned 64-bit values above `i64::MAX` wrap.
    pub fn enum_value(&self, enumerator: &str) -> Option<i64> {
        let enums = self.enums.iter().filter_map(|&id| self.ty(id));
        enums.filter_map(|ty| self.value_in(ty, enumerator)).next()
    }

    /// The arguments of a raw or BTF tracepoint, without the leading `void *` that programs do
    /// not see. `None` where this kernel has no such tracepoint.
    pub fn tracepoint(&self, name: &str) -> Option<Prototype> {
        let typedef = self.kind_named(&format!("btf_trace_{name}"), Kind::Typedef)?;
        let pointer = self.resolve(typedef.size_or_type)?;
        if pointer.kind != Kind::Ptr {
            return None;
        }
        let mut proto = self.prototype(pointer.size_or_type)?;
        if proto.args.is_empty() {
            return None;
        }
        proto.args.remove(0);
        Some(proto)
    }

    /// The arguments and return type of a kernel function. Functions that exist only inlined are
    /// missing; of several static ones with the same name the first answers.
    pub fn function(&self, name: &str) -> Option<Prototype> {
        self.prototype(self.kind_named(name, Kind::Func)?.size_or_type)
    }

    /// The BTF id of a kernel function, for `attach_btf_id` of fentry and fexit.
    pub fn func_id(&self, name: &str) -> Option<u32> {
        self.kind_named(name, Kind::Func).map(|ty| ty.id)
    }

    /// The BTF id of a typedef, for `attach_btf_id` of `tp_btf` (`btf_trace_<tracepoint>`).
    pub fn typedef_id(&self, name: &str) -> Option<u32> {
        self.kind_named(name, Kind::Typedef).map(|ty| ty.id)
    }

    fn kind_named(&self, name: &str, kind: Kind) -> Option<Type> {
        self.named(name).find(|ty| ty.kind == kind)
    }

    fn name(&self, ty: Type) -> Option<String> {
        let name = self.name_bytes(ty.name_off).filter(|name| !name.is_empty())?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    /// Follows typedefs and qualifiers to a type proper; `None` for `void`.
    fn resolve(&self, mut id: u32) -> Option<Type> {
        for _ in 0..MAX_CHAIN {
            let ty = self.ty(id)?;
            match ty.kind {
                Kind::Typedef | Kind::Const | Kind::Volatile | Kind::Restrict | Kind::TypeTag => {
                    id = ty.size_or_type;
                }
                _ => return Some(ty),
            }
        }
        None
    }

    fn size(&self, id: u32) -> Option<u32> {
        let mut ty = self.resolve(id)?;
        let mut count = 1_u32;
        for _ in 0..MAX_CHAIN {
            let one = match ty.kind {
                Kind::Array => {
                    count = count.checked_mul(self.word(ty.data + 8)?)?;
                    ty = self.resolve(self.word(ty.data)?)?;
                    continue;
                }
                Kind::Int
                | Kind::Struct
                | Kind::Union
                | Kind::Enum
                | Kind::Enum64
                | Kind::Float => ty.size_or_type,
                Kind::Ptr => size_of::<usize>() as u32,
                _ => return None,
            };
            return count.checked_mul(one);
        }
        None
    }

    /// A member's offset in bytes and its type id.
    fn member(&self, ty: &str, path: &str) -> Option<(u32, u32)> {
        let mut visits = MAX_VISITS;
        self.named(ty)
            .filter(|ty| ty.kind != Kind::Func)
            .find_map(|ty| self.walk(ty.id, path, &mut visits))
    }

    fn walk(&self, mut ty: u32, path: &str, visits: &mut u32) -> Option<(u32, u32)> {
        let mut bits = 0_u32;
        for name in path.split('.') {
            let member = self.find(self.resolve(ty)?, name, 0, visits)?;
            if member.bitfield {
                return None;
            }
            bits = bits.checked_add(member.bits)?;
            ty = member.ty;
        }
        bits.is_multiple_of(8).then_some((bits / 8, ty))
    }

    /// Looks for a member in a struct or union and in its anonymous members.
    fn find(&self, ty: Type, name: &str, depth: u32, visits: &mut u32) -> Option<Member> {
        if !matches!(ty.kind, Kind::Struct | Kind::Union) || name.is_empty() {
            return None;
        }
        if depth > MAX_DEPTH {
            *visits = 0;
        }
        for at in (ty.data..).step_by(12).take(ty.vlen) {
            *visits = visits.checked_sub(1)?;
            let (name_off, id, raw) = (self.word(at)?, self.word(at + 4)?, self.word(at + 8)?);
            // With the kind flag the upper byte is the width of a bitfield, 0 for none.
            let bits = if ty.kind_flag { raw & 0xff_ffff } else { raw };
            if self.has_name(name_off, name) {
                let bitfield = (ty.kind_flag && raw >> 24 != 0) || self.is_partial_int(id);
                return Some(Member { bits, ty: id, bitfield });
            }
            if self.has_name(name_off, "")
                && let Some(inner) = self.resolve(id)
                && let Some(member) = self.find(inner, name, depth + 1, visits)
            {
                return Some(Member { bits: bits.checked_add(member.bits)?, ..member });
            }
        }
        None
    }

    /// Without the kind flag, a bitfield is an integer type with fewer bits than its bytes hold.
    fn is_partial_int(&self, id: u32) -> bool {
        let int = self.resolve(id).filter(|ty| ty.kind == Kind::Int);
        int.and_then(|ty| Some((ty.size_or_type, self.word(ty.data)?)))
            .is_some_and(|(size, encoding)| (encoding & 0xff) != size.saturating_mul(8))
    }

    fn value_in(&self, ty: Type, enumerator: &str) -> Option<i64> {
        let entry = if ty.kind == Kind::Enum64 { 12 } else { 8 };
        let entries = self.data.get(ty.data..)?.get(..ty.vlen * entry)?;
        let index = entries.chunks_exact(entry).position(|entry| {
            let name = entry.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
            name.is_some_and(|name| self.has_name(name, enumerator))
        })?;
        let at = ty.data + index * entry;
        let low = self.word(at + 4)?;
        Some(match ty.kind {
            Kind::Enum64 => (u64::from(self.word(at + 8)?) << 32 | u64::from(low)) as i64,
            // The kind flag says "signed". pahole before 1.24 never sets it.
            _ if ty.kind_flag => i64::from(low as i32),
            _ => i64::from(low),
        })
    }

    fn prototype(&self, id: u32) -> Option<Prototype> {
        let proto = self.ty(id).filter(|ty| ty.kind == Kind::FuncProto)?;
        let args = (proto.data..)
            .step_by(8)
            .take(proto.vlen)
            .map(|at| self.word(at + 4).map(|id| self.arg_type(id)))
            .collect::<Option<_>>()?;
        Some(Prototype { args, ret: self.arg_type(proto.size_or_type) })
    }

    fn arg_type(&self, id: u32) -> ArgType {
        let Some(ty) = self.resolve(id) else { return ArgType::Void };
        match ty.kind {
            Kind::Ptr => self
                .resolve(ty.size_or_type)
                .filter(|to| matches!(to.kind, Kind::Struct | Kind::Union | Kind::Fwd))
                .and_then(|to| self.name(to))
                .map_or(ArgType::Pointer, ArgType::PointerTo),
            Kind::Int => {
                let encoding = self.word(ty.data).unwrap_or(0) >> 24;
                // BTF_INT_SIGNED is bit 0 of the encoding.
                ArgType::Integer { size: ty.size_or_type, signed: encoding & 1 == 1 }
            }
            Kind::Enum | Kind::Enum64 => ArgType::Enum { size: ty.size_or_type },
            _ => ArgType::Other,
        }
    }
}
