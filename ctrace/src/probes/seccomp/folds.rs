//! The denials that were counted and not sent.

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData},
};
use ctrace_common::event::seccomp::{FoldKey, Seccomp};
use rustc_hash::FxHashMap;

type KeyBytes = [u8; size_of::<FoldKey>()];
type ValueBytes = [u8; size_of::<Seccomp>()];
type Map = HashMap<MapData, KeyBytes, ValueBytes>;

/// The maps, and what was told of each.
pub struct Folds {
    maps: [Map; 2],
    told: [FxHashMap<KeyBytes, u64>; 2],
    in_use: Array<MapData, u32>,
    /// Index of the one that programs add to.
    current: usize,
}

impl Folds {
    /// Takes the maps out of the object.
    ///
    /// # Errors
    /// Where it has none.
    pub fn new(object: &mut Ebpf) -> Result<Self> {
        let mut take = |name: &str| {
            object.take_map(name).with_context(|| format!("the eBPF object has no map {name}"))
        };
        Ok(Self {
            maps: [
                HashMap::try_from(take("SECCOMP_FOLDS_0")?)?,
                HashMap::try_from(take("SECCOMP_FOLDS_1")?)?,
            ],
            told: Default::default(),
            in_use: Array::try_from(take("SECCOMP_IN_USE")?)?,
            current: 0,
        })
    }

    /// The denials since the last call, each kind with its count. Empties the map that was not in use
    /// since then, and has the programs use it: none of them holds a count there any more.
    pub fn take(&mut self) -> Vec<Seccomp> {
        let Self { maps, told, in_use, current } = self;
        let mut denials = Vec::new();
        for (map, told) in maps.iter().zip(told.iter_mut()) {
            for (key, value) in map.iter().filter_map(std::result::Result::ok) {
                let mut denial: Seccomp = zerocopy::transmute!(value);
                let before = told.insert(key, denial.count).unwrap_or(0);
                denial.count = denial.count.saturating_sub(before);
                if denial.count > 0 {
                    denials.push(denial);
                }
            }
        }
        let idle = 1 - *current;
        for (key, _) in told[idle].drain() {
            // It was read from there, and nobody else removes it.
            let _ = maps[idle].remove(&key);
        }
        if in_use.set(0, idle as u32, 0).is_ok() {
            *current = idle;
        }
        denials
    }
}
