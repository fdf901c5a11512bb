//! What the controller asks of a slot.

use aya_ebpf::{helpers::bpf_skb_load_bytes, programs::TcContext};
use orch_common::{
    command::{self, ETHERNET_BYTES, SlotCommand, Verb},
    counter::Reason,
    slot::{Slot, SlotState},
};

use crate::{atomic, maps, pulse, sweep};

/// Carries out a command. Answers 0, or 1 if it could not be read or stored.
#[inline(always)]
pub fn command(ctx: &TcContext) -> i32 {
    let Some(command) = read(ctx) else {
        return 1;
    };
    let done = if command.verb == Verb::Set as u32 {
        set(&command)
    } else if command.verb == Verb::Correct as u32 {
        correct(&command);
        Ok(())
    } else if command.verb == Verb::Reroute as u32 {
        sweep::reroute();
        Ok(())
    } else {
        maps::set_generation(command.key, 0);
        pulse::begin(command.key);
        maps::remove_slot(&command.key)
    };
    i32::from(done.is_err())
}

#[inline(always)]
fn read(ctx: &TcContext) -> Option<SlotCommand> {
    let mut command = core::mem::MaybeUninit::<SlotCommand>::uninit();
    // SAFETY: the helper writes the whole of the command or fails; its fields are plain numbers.
    unsafe {
        let failed = bpf_skb_load_bytes(
            ctx.skb.skb.cast(),
            ETHERNET_BYTES as u32,
            command.as_mut_ptr().cast(),
            size_of::<SlotCommand>() as u32,
        );
        (failed == 0).then(|| command.assume_init())
    }
}

/// Creates or changes a slot. A new generation starts without live connections: those of the old
/// one are dead.
#[inline(always)]
fn set(command: &SlotCommand) -> Result<(), i32> {
    let key = command.key;
    let Some(slot) = maps::slot(&key) else {
        maps::set_generation(key, command.generation);
        pulse::begin(key);
        return maps::insert_slot(&key, &fresh(command));
    };
    slot.address = command.address;
    slot.address6 = command.address6;
    slot.ifindex = command.ifindex;
    slot.bridge = command.bridge;
    slot.port = command.port;
    slot.backend_port = command.backend_port;
    slot.state = command::slot_state(command.state);
    // Whoever says that it is ready has asked it.
    if matches!(slot.state, SlotState::Ready) || slot.generation != command.generation {
        pulse::clear(key);
        slot.alive = 1;
    }
    if slot.generation != command.generation {
        slot.generation = command.generation;
        // From here on, what happens to flows of the one before changes no count.
        maps::set_generation(key, command.generation);
        slot.live = 0;
        slot.local = 0;
        pulse::begin(key);
    }
    Ok(())
}

/// Takes out of a slot's counts the flows that the table has forgotten while they were open.
#[inline(always)]
fn correct(command: &SlotCommand) {
    let (Some(slot), Some(pulse)) = (maps::slot(&command.key), maps::pulse(command.key)) else {
        return;
    };
    if slot.generation != command.generation {
        return;
    }
    let less = |number: i32| i64::from(number).wrapping_neg() as u64;
    atomic::add(&raw mut slot.live, less(command.live));
    atomic::add(&raw mut pulse.in_flight[0], less(command.waiting));
    if let Some(cell) = maps::reason(Reason::Lost) {
        // Counted again if they were there after all.
        atomic::add(cell, i64::from(command.live) as u64);
    }
}

#[inline(always)]
fn fresh(command: &SlotCommand) -> Slot {
    Slot {
        address: command.address,
        address6: command.address6,
        port: command.port,
        backend_port: command.backend_port,
        state: command::slot_state(command.state),
        generation: command.generation,
        ifindex: command.ifindex,
        bridge: command.bridge,
        alive: 1,
        live: 0,
        connections: 0,
        local: 0,
    }
}
