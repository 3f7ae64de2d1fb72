//! A reader for the kernel's own type information (BTF, `Documentation/bpf/btf.rst`).
//!
//! It indexes and answers questions; it copies no type. aya's reader keeps struct members private
//! and takes twenty times as long for the whole of vmlinux. All reads are bounds-checked and all
//! walks are bounded, so hostile bytes give an error or `None`, never a panic or a hang.

use std::{fs, io};

mod query;
#[cfg(test)]
mod tests;

pub use query::{ArgType, Prototype};

/// Where the kernel publishes its BTF (`CONFIG_DEBUG_INFO_BTF`).
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why a BTF blob cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The blob could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: &'static str,
        /// The error of the read.
        source: io::Error,
    },
    /// Not BTF of this machine's byte order: wrong magic or version, or no room for a header.
    #[error("not BTF in this machine's byte order")]
    NotBtf,
    /// A section named by the header does not lie inside the blob.
    #[error("BTF header names a section outside the file")]
    Section,
    /// A type's record runs past the end of the type section.
    #[error("BTF type {id} is cut short")]
    Truncated {
        /// The type's id.
        id: u32,
    },
    /// A kind this reader does not know, whose length it therefore cannot know either.
    #[error("BTF type {id} has unknown kind {kind}")]
    UnknownKind {
        /// The type's id.
        id: u32,
        /// The kind's number.
        kind: u8,
    },
}

/// `BTF_KIND_*` of `include/uapi/linux/btf.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    Datasec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

impl Kind {
    const ALL: [Self; 19] = [
        Self::Int,
        Self::Ptr,
        Self::Array,
        Self::Struct,
        Self::Union,
        Self::Enum,
        Self::Fwd,
        Self::Typedef,
        Self::Volatile,
        Self::Const,
        Self::Restrict,
        Self::Func,
        Self::FuncProto,
        Self::Var,
        Self::Datasec,
        Self::Float,
        Self::DeclTag,
        Self::TypeTag,
        Self::Enum64,
    ];

    fn from_raw(raw: u8) -> Option<Self> {
        Self::ALL.get(usize::from(raw).checked_sub(1)?).copied()
    }

    /// Bytes that follow the 12-byte record of a type with `vlen` entries.
    fn trailer(self, vlen: usize) -> usize {
        match self {
            Self::Int | Self::Var | Self::DeclTag => 4,
            Self::Array => 12,
            Self::Struct | Self::Union | Self::Datasec | Self::Enum64 => vlen * 12,
            Self::Enum | Self::FuncProto => vlen * 8,
            Self::Ptr
            | Self::Fwd
            | Self::Typedef
            | Self::Volatile
            | Self::Const
            | Self::Restrict
            | Self::Func
            | Self::Float
            | Self::TypeTag => 0,
        }
    }

    /// Whether questions name types of this kind.
    fn is_indexed(self) -> bool {
        matches!(
            self,
            Self::Int
                | Self::Struct
                | Self::Union
                | Self::Enum
                | Self::Enum64
                | Self::Typedef
                | Self::Func
        )
    }
}

/// `struct btf_type`: what every kind of type starts with.
#[derive(Clone, Copy, Debug)]
struct Type {
    id: u32,
    kind: Kind,
    kind_flag: bool,
    vlen: usize,
    name_off: u32,
    /// A size in bytes or a type id, by kind.
    size_or_type: u32,
    /// Where the kind's own data starts in the blob.
    data: usize,
}

/// The size of `struct btf_type`.
const RECORD: usize = 12;

/// A parsed BTF blob, with an index of its named types.
///
/// It holds the whole blob (about 6 MB for a kernel): ask what is needed, then drop it.
pub struct Btf {
    data: Vec<u8>,
    /// The string section, inside `data`.
    strings: std::ops::Range<usize>,
    /// Where the record of type `id` starts: `offsets[id - 1]`. Type 0 is `void`.
    offsets: Vec<u32>,
    /// A chained hash table over the names: the first type id of each bucket, 0 for none...
    buckets: Vec<u32>,
    /// ...and for each type the next id of its bucket, 0 at the end.
    chain: Vec<u32>,
    /// Ids of all enums, for questions by enumerator.
    enums: Vec<u32>,
}

impl Btf {
    /// Reads and indexes the running kernel's BTF (about 5 ms).
    ///
    /// # Errors
    /// [`BtfError::Read`] where the kernel has none or hides it, else as [`Btf::parse`].
    pub fn of_kernel() -> Result<Self, BtfError> {
        let data =
            fs::read(KERNEL_BTF).map_err(|source| BtfError::Read { path: KERNEL_BTF, source })?;
        Self::parse(data)
    }

    /// Indexes a BTF blob in this machine's byte order. Type ids count from 1, so this is for a
    /// base BTF (vmlinux), not for a module's split BTF.
    ///
    /// # Errors
    /// A [`BtfError`] that says what is wrong with the bytes. Only what the index needs is checked;
    /// a bad reference inside a type gives `None` to the question that meets it.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        const MAGIC: [u8; 2] = 0xeb9f_u16.to_ne_bytes();
        const VERSION: u8 = 1;
        if data.get(..3) != Some(&[MAGIC[0], MAGIC[1], VERSION]) {
            return Err(BtfError::NotBtf);
        }
        let header = |at| u32_at(&data, at).map(|v| v as usize).ok_or(BtfError::NotBtf);
        let header_len = header(4)?;
        let section = |at: usize| {
            let start = header_len.checked_add(header(at)?).ok_or(BtfError::Section)?;
            let end = start.checked_add(header(at + 4)?).ok_or(BtfError::Section)?;
            // Offsets are kept in 32 bits.
            if end > data.len() || u32::try_from(end).is_err() {
                Err(BtfError::Section)
            } else {
                Ok(start..end)
            }
        };
        let types = section(8)?;
        let strings = section(16)?;

        // vmlinux averages 37 bytes a type: one allocation, little slack.
        let mut offsets = Vec::with_capacity(types.len() / 32);
        let mut enums = Vec::new();
        let mut at = types.start;
        while at < types.end {
            let id = offsets.len() as u32 + 1;
            let head = read_type(&data, id, at)?;
            at = head.data + head.kind.trailer(head.vlen);
            if at > types.end {
                return Err(BtfError::Truncated { id });
            }
            offsets.push((head.data - RECORD) as u32);
            if matches!(head.kind, Kind::Enum | Kind::Enum64) {
                enums.push(id);
            }
        }
        let mut btf =
            Self { data, strings, offsets, buckets: Vec::new(), chain: Vec::new(), enums };
        btf.index_names();
        Ok(btf)
    }

    fn index_names(&mut self) {
        let count = self.offsets.len();
        let mut buckets = vec![0; (count / 2).next_power_of_two()];
        let mut chain = vec![0; count];
        // Backwards, so that each chain runs from the first type to the last.
        for id in (1..=count as u32).rev() {
            let Some(ty) = self.ty(id) else { continue };
            if !ty.kind.is_indexed() {
                continue;
            }
            let name = &self.data[self.strings.clone()];
            let Some(name) =
                name.get(ty.name_off as usize..).filter(|name| name.first() != Some(&0))
            else {
                continue;
            };
            let bucket = hash(name) & (buckets.len() - 1);
            chain[id as usize - 1] = buckets[bucket];
            buckets[bucket] = id;
        }
        self.buckets = buckets;
        self.chain = chain;
    }

    /// All indexed types of this name, in the order of their ids.
    fn named(&self, name: &str) -> impl Iterator<Item = Type> {
        let link = |id: &u32| Some(*id).filter(|&id| id != 0);
        let first = link(&self.buckets[hash(name.as_bytes()) & (self.buckets.len() - 1)]);
        std::iter::successors(first, move |&id| self.chain.get(id as usize - 1).and_then(link))
            .filter_map(|id| self.ty(id))
            .filter(move |ty| self.has_name(ty.name_off, name))
    }

    /// The type with this id; `None` for `void` (0) and for ids out of range.
    fn ty(&self, id: u32) -> Option<Type> {
        let at = *self.offsets.get((id as usize).checked_sub(1)?)?;
        read_type(&self.data, id, at as usize).ok()
    }

    /// The string at an offset of the string section, without its NUL.
    fn name_bytes(&self, name_off: u32) -> Option<&[u8]> {
        let rest = self.data.get(self.strings.clone())?.get(name_off as usize..)?;
        let len = rest.iter().position(|&b| b == 0)?;
        Some(&rest[..len])
    }

    /// Compares without looking for the string's end first.
    fn has_name(&self, name_off: u32, name: &str) -> bool {
        let at = self.strings.start + name_off as usize;
        let end = at + name.len();
        // Nearly all comparisons fail at the NUL's place already.
        end < self.strings.end && self.data[end] == 0 && &self.data[at..end] == name.as_bytes()
    }

    fn word(&self, at: usize) -> Option<u32> {
        u32_at(&self.data, at)
    }
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*data.get(at..)?.first_chunk()?))
}

fn read_type(data: &[u8], id: u32, at: usize) -> Result<Type, BtfError> {
    let word = |n| u32_at(data, at + n).ok_or(BtfError::Truncated { id });
    let (name_off, info, size_or_type) = (word(0)?, word(4)?, word(8)?);
    // Bits 16-23 and 29-30 were reserved as zero before they widened vlen and kind.
    let raw = (info >> 24 & 0x7f) as u8;
    let kind = Kind::from_raw(raw).ok_or(BtfError::UnknownKind { id, kind: raw })?;
    let kind_flag = info >> 31 == 1;
    let vlen = (info & 0xff_ffff) as usize;
    Ok(Type { id, kind, kind_flag, vlen, name_off, size_or_type, data: at + RECORD })
}

/// FNV-1a of a name up to its NUL or its end.
fn hash(name: &[u8]) -> usize {
    let bytes = name.iter().take_while(|&&b| b != 0);
    bytes.fold(0x811c_9dc5_u32, |h, &b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193)) as usize
}
