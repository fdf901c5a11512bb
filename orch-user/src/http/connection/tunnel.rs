//! How do a client and a copy speak another protocol?

use futures_util::future::BoxFuture;
use tokio::io::{AsyncWriteExt, copy_bidirectional};

use super::super::{backend::Switched, service::Flight, stream::Stream};

pub(super) fn boxed_tunnel<S: Stream>(
    client: S,
    early: Vec<u8>,
    other: (Switched, Flight),
) -> BoxFuture<'static, ()> {
    Box::pin(tunnel(client, early, other))
}

/// Carries bytes both ways until both are through.
async fn tunnel<S: Stream>(mut client: S, early: Vec<u8>, (switched, flight): (Switched, Flight)) {
    let Switched {
        mut stream,
        early: answered,
    } = switched;
    let done = async {
        stream.write_all(&early).await?;
        client.write_all(&answered).await?;
        copy_bidirectional(&mut client, &mut stream).await
    };
    // Either side may break off.
    let _ = done.await;
    drop(flight);
}
