//! Bodies of HTTP messages.

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use tower::BoxError;

/// Reads a body whole. Most come as one part, which is not copied; the parts of others are not kept,
/// however small they are.
///
/// # Errors
/// [`LengthLimitError`](http_body_util::LengthLimitError) if it is longer than `most` bytes, or what the
/// body says.
pub(crate) async fn read<B>(body: B, most: usize) -> Result<Bytes, BoxError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let mut body = Limited::new(body, most);
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(part) = frame?.into_data() else { continue };
        if first.is_empty() && all.is_empty() {
            first = part;
            continue;
        }
        all.extend_from_slice(&std::mem::take(&mut first));
        all.extend_from_slice(&part);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}
