//! What the data plane costs: time per packet, size of the programs, memory of the maps.

use std::{
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use aya::{
    maps::MapInfo,
    programs::{Program, ProgramError, TestRun, TestRunOptions},
};
use orch_common::layout::map;

use super::{Dataplane, DataplaneError};

/// The size of a loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramSize {
    /// Its name.
    pub name: String,
    /// Instructions, as the verifier has left them.
    pub instructions: u32,
    /// Bytes of machine code.
    pub machine_code: u32,
    /// Instructions that the verifier has walked through; 0 before Linux 5.16.
    pub verified: u32,
}

/// The kernel memory of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapMemory {
    /// Its name.
    pub name: &'static str,
    /// Entries that it can hold.
    pub entries: u32,
    /// Bytes that the kernel has set aside for it.
    pub bytes: u64,
}

impl Dataplane {
    /// Runs a TC or socket program `repeat` times on a frame and gives the mean time of a run, as the kernel
    /// measures it. Every run gets what the one before has made of the frame.
    pub fn time(
        &mut self,
        name: &'static str,
        frame: &[u8],
        repeat: u32,
    ) -> Result<Duration, DataplaneError> {
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::new()
        };
        let program = self
            .ebpf
            .program_mut(name)
            .ok_or(DataplaneError::Missing { name })?;
        let result = match program {
            Program::CgroupSkb(hook) => hook.test_run(options),
            Program::SchedClassifier(hook) => hook.test_run(options),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        let result = result.map_err(DataplaneError::program(name, "test run"))?;
        Ok(result.duration)
    }

    /// Sizes of the loaded programs, by name.
    pub fn programs(&self) -> Vec<ProgramSize> {
        const INSTRUCTION_BYTES: u32 = 8;
        let mut sizes: Vec<ProgramSize> = self
            .ebpf
            .programs()
            .filter_map(|(name, program)| {
                // A program that this host has no hook for is not loaded.
                let info = program.info().ok()?;
                Some(ProgramSize {
                    name: name.to_owned(),
                    instructions: info.size_translated().unwrap_or(0) / INSTRUCTION_BYTES,
                    machine_code: info.size_jitted(),
                    verified: info.verified_instruction_count().unwrap_or(0),
                })
            })
            .collect();
        sizes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        sizes
    }

    /// Memory of every map, as `/proc/self/fdinfo` shows it.
    pub fn memory(&self) -> Result<Vec<MapMemory>, DataplaneError> {
        map::ALL.iter().map(|name| self.map_memory(name)).collect()
    }

    fn map_memory(&self, name: &'static str) -> Result<MapMemory, DataplaneError> {
        let info = MapInfo::from_pin(self.pins.map(name)).map_err(DataplaneError::map(name))?;
        let fd = info.fd().map_err(DataplaneError::map(name))?;
        let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
        let text =
            std::fs::read_to_string(&path).map_err(|source| DataplaneError::file(&path, source))?;
        let bytes = text
            .lines()
            .find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
        Ok(MapMemory {
            name,
            entries: info.max_entries(),
            bytes: bytes.unwrap_or(0),
        })
    }
}
