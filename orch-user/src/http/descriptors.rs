//! Open sockets from one process to another, as messages of a unix socket (`SCM_RIGHTS`).

use std::{
    collections::BTreeMap,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::TcpListener,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::wire::{Socket, WireError};

/// Descriptors in one message; the kernel takes 253.
const BATCH: usize = 64;

/// Sends them in their order.
pub(super) fn send(
    to: &UnixStream,
    sockets: &BTreeMap<Socket, TcpListener>,
) -> Result<(), WireError> {
    let all: Vec<BorrowedFd<'_>> = sockets.values().map(AsFd::as_fd).collect();
    for batch in all.chunks(BATCH) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        rights.push(SendAncillaryMessage::ScmRights(batch));
        // A message needs a byte to travel with.
        let byte = [IoSlice::new(&[0])];
        sendmsg(to, &byte, &mut rights, SendFlags::empty()).map_err(std::io::Error::from)?;
    }
    Ok(())
}

/// Receives as many as these are.
pub(super) fn receive(
    from: &UnixStream,
    sockets: Vec<Socket>,
) -> Result<BTreeMap<Socket, TcpListener>, WireError> {
    let mut all: Vec<OwnedFd> = Vec::new();
    while all.len() < sockets.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut rights, flags)
            .map_err(std::io::Error::from)?;
        let before = all.len();
        for message in rights.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                all.extend(descriptors);
            }
        }
        if got.bytes == 0 || all.len() == before {
            return Err(WireError::Unexpected);
        }
    }
    Ok(sockets
        .into_iter()
        .zip(all.into_iter().map(Into::into))
        .collect())
}
