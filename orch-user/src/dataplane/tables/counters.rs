//! What has been counted for a slot?

use aya::{maps::PerCpuValues, util::nr_cpus};
use orch_common::{
    counter::{Bytes, SlotCounters},
    latency::Histogram,
    layout::map,
    slot::SlotKey,
};

use super::{Tables, gone};
use crate::dataplane::DataplaneError;

impl Tables {
    /// Makes sure that a slot has counters; those that are there stay.
    pub(in super::super) fn ensure_counters(&mut self, key: SlotKey) -> Result<(), DataplaneError> {
        const NOEXIST: u64 = 1;
        if self.counters.get(&key, 0).is_err() {
            // Another slot may have had its place.
            self.bytes
                .set(key.index(), on_each_cpu(Bytes::default())?, 0)
                .map_err(DataplaneError::map(map::BYTES))?;
            self.counters
                .insert(key, on_each_cpu(SlotCounters::default())?, NOEXIST)
                .map_err(DataplaneError::map(map::COUNTERS))?;
        }
        if self.latency.get(&key, 0).is_err() {
            self.latency
                .insert(key, Histogram::default(), NOEXIST)
                .map_err(DataplaneError::map(map::LATENCY))?;
        }
        Ok(())
    }

    /// Forgets what a slot has counted.
    pub(in super::super) fn remove_counters(&mut self, key: SlotKey) -> Result<(), DataplaneError> {
        gone(self.counters.remove(&key), map::COUNTERS)?;
        gone(self.latency.remove(&key), map::LATENCY)
    }

    /// Keys of all slots that have counters.
    pub(in super::super) fn counted(&self) -> Vec<SlotKey> {
        self.counters.keys().flatten().collect()
    }

    /// Counters of a slot, over all CPUs.
    pub(in super::super) fn counters(&self, key: SlotKey) -> SlotCounters {
        let mut sum = SlotCounters::default();
        if let Ok(values) = self.counters.get(&key, 0) {
            for value in values.iter() {
                sum += *value;
            }
        }
        sum
    }

    /// Bytes of a slot, over all CPUs.
    pub(in super::super) fn bytes(&self, key: SlotKey) -> Bytes {
        let mut sum = Bytes::default();
        if let Ok(values) = self.bytes.get(&key.index(), 0) {
            for value in values.iter() {
                sum += *value;
            }
        }
        sum
    }

    /// Response times of a slot.
    pub(in super::super) fn latency(&self, key: SlotKey) -> Histogram {
        self.latency.get(&key, 0).unwrap_or_default()
    }
}

/// The same value for each CPU.
fn on_each_cpu<T: aya::Pod>(value: T) -> Result<PerCpuValues<T>, DataplaneError> {
    let cpus = nr_cpus().map_err(|(path, source)| DataplaneError::file(path, source))?;
    PerCpuValues::try_from(vec![value; cpus])
        .map_err(|source| DataplaneError::file("/sys/devices/system/cpu/possible", source))
}
