//! Request bodies, read up to a limit.

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;

use crate::error::Error;

/// The largest body that is taken.
pub(crate) const LIMIT: usize = 16 << 20;
/// How much of a body that is not wanted is read all the same. Closing a connection with unread
/// data resets it, and the reset overtakes the answer; a client that sends more than this has to
/// live with that.
const DISCARD_LIMIT: usize = 64 << 20;

/// The whole body.
pub(crate) async fn read(mut body: Body) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Error::Body)?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > LIMIT {
            discard(body).await;
            return Err(Error::BodyTooLarge { limit: LIMIT });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Reads what is left and forgets it.
pub(crate) async fn discard(mut body: Body) {
    let mut left = DISCARD_LIMIT;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
