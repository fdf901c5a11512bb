//! Running a program by hand, and looking at what it has left.

use std::time::Duration;

use aya::{
    maps::{HashMap, MapData, MapError},
    programs::{TestRun, TestRunOptions},
};
use orch_common::{
    flow::{Flow, FlowKey},
    layout::map,
};

use super::{Dataplane, DataplaneError, load};

/// What a program made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The TC action.
    pub verdict: i32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// How long the program ran.
    pub duration: Duration,
}

impl Dataplane {
    /// Runs a program once on a frame and gives its answer.
    pub(super) fn run(&mut self, name: &'static str, frame: &[u8]) -> Result<u32, DataplaneError> {
        let tc = load::classifier(&mut self.ebpf, name)?;
        let options = TestRunOptions {
            data_in: Some(frame),
            ..TestRunOptions::new()
        };
        let result = tc
            .test_run(options)
            .map_err(DataplaneError::program(name, "test run"))?;
        Ok(result.return_value)
    }

    /// Runs a TC program once on a frame, as if it had come by, without an interface: for packet
    /// tests and measurements. `name` is one of `orch_common::layout::program`.
    pub fn trial(&mut self, name: &'static str, frame: &[u8]) -> Result<Trial, DataplaneError> {
        let mut after = vec![0; frame.len() + 256];
        let tc = load::classifier(&mut self.ebpf, name)?;
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut after),
            ..TestRunOptions::new()
        };
        let result = tc
            .test_run(options)
            .map_err(DataplaneError::program(name, "test run"))?;
        after.truncate(result.data_size_out as usize);
        Ok(Trial {
            verdict: result.return_value.cast_signed(),
            frame: after,
            duration: result.duration,
        })
    }

    /// A flow: one from outside, or of a local client to a backend's own address.
    pub fn flow(&self, key: &FlowKey) -> Result<Option<Flow>, DataplaneError> {
        let map = self
            .ebpf
            .map(map::FLOWS)
            .ok_or(DataplaneError::Missing { name: map::FLOWS })?;
        let flows: HashMap<&MapData, FlowKey, Flow> =
            HashMap::try_from(map).map_err(DataplaneError::map(map::FLOWS))?;
        match flows.get(key, 0) {
            Ok(flow) => Ok(Some(flow)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(DataplaneError::map(map::FLOWS)(error)),
        }
    }
}
