//! Reading a request's body within bounds. The bound is on the bytes that come, not on what the headers promise.

use super::problem::Problem;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// A body that is too long is read on, and thrown away, up to this many times the bound: a client that is still sending
/// when the connection closes would not see the answer.
const READ_ON_FACTOR: usize = 4;

/// Reads a body of at most `bytes_max` bytes that is all there before the deadline. Above the bound the answer is
/// 413, at once where it is far above; after the deadline it is 408.
pub async fn read_body(request: Request, bytes_max: usize, deadline: Duration) -> Result<Bytes, Problem> {
    let promised = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if promised.is_some_and(|bytes| bytes > bytes_max.saturating_mul(READ_ON_FACTOR) as u64) {
        return Err(Problem::payload_too_large(bytes_max));
    }
    match tokio::time::timeout(deadline, collect(request, bytes_max)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Problem::request_timeout(format!("the body did not come within {} ms", deadline.as_millis()))),
    }
}

async fn collect(request: Request, bytes_max: usize) -> Result<Bytes, Problem> {
    let mut body = request.into_body();
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let mut read = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::bad_request("the body broke off"))?;
        let Ok(chunk) = frame.into_data() else { continue };
        read = read.saturating_add(chunk.len());
        if read > bytes_max.saturating_mul(READ_ON_FACTOR) {
            return Err(Problem::payload_too_large(bytes_max));
        }
        if read > bytes_max {
            (first, all) = (Bytes::new(), BytesMut::new());
            continue;
        }
        // Most bodies come in one piece, and need not be copied then.
        if first.is_empty() && all.is_empty() {
            first = chunk;
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&first);
            first = Bytes::new();
        }
        all.extend_from_slice(&chunk);
    }
    if read > bytes_max {
        return Err(Problem::payload_too_large(bytes_max));
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// Reads a body of JSON, see [`read_body`]. Another media type is 415; what does not fit is 400 and names the field.
pub async fn read_json<T: DeserializeOwned>(
    request: Request,
    bytes_max: usize,
    deadline: Duration,
) -> Result<T, Problem> {
    let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = media_type.and_then(|value| value.split(';').next()).map(str::trim);
    if !essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return Err(Problem::unsupported_media_type("the body must be application/json"));
    }
    let body = read_body(request, bytes_max, deadline).await?;
    let mut json = serde_json::Deserializer::from_slice(&body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.into_inner().to_string();
        let problem = Problem::bad_request("the body is not of the right form");
        // A path of "." is the body as a whole.
        if path == "." { Problem::bad_request(cause) } else { problem.with_field(path, cause) }
    })?;
    json.end().map_err(|_| Problem::bad_request("something follows the JSON value"))?;
    Ok(value)
}
