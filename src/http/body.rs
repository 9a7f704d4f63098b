//! Reading a request's body within bounds. The bound is on the bytes that come, not on what the headers promise.

use super::problem::Problem;
use axum::body::Body;
use axum::body::HttpBody as _;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// A body that is too long is read on for so long, and thrown away: a client that is still sending when the connection
/// closes would not see the answer.
const READ_ON: Duration = Duration::from_millis(500);

/// And at most so many times the bound.
const READ_ON_FACTOR: usize = 4;

/// Reads a body of at most `bytes_max` bytes that is all there before the deadline. Above the bound the answer is
/// 413, soon; after the deadline it is 408.
pub async fn read_body(request: Request, bytes_max: usize, deadline: Duration) -> Result<Bytes, Problem> {
    let mut body = request.into_body();
    // As the headers promise, where they do.
    if body.size_hint().lower() > bytes_max as u64 {
        read_on(&mut body, bytes_max).await;
        return Err(Problem::payload_too_large(bytes_max));
    }
    let late = || Problem::request_timeout(format!("the body did not come within {} ms", deadline.as_millis()));
    match tokio::time::timeout(deadline, collect(&mut body, bytes_max)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => {
            read_on(&mut body, bytes_max).await;
            Err(Problem::payload_too_large(bytes_max))
        }
        Ok(Err(problem)) => Err(problem),
        Err(_) => Err(late()),
    }
}

/// Takes what a client still sends, within bounds.
async fn read_on(body: &mut Body, bytes_max: usize) {
    let rest = async {
        let mut read = 0_usize;
        while let Some(Ok(frame)) = body.frame().await {
            read = read.saturating_add(frame.data_ref().map_or(0, Bytes::len));
            if read > bytes_max.saturating_mul(READ_ON_FACTOR) {
                return;
            }
        }
    };
    // It is a courtesy: when the time is over the answer is the same.
    let _over = tokio::time::timeout(READ_ON, rest).await;
}

/// All of the body, or none where it is longer than the bound.
async fn collect(body: &mut Body, bytes_max: usize) -> Result<Option<Bytes>, Problem> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::bad_request("the body broke off"))?;
        let Ok(chunk) = frame.into_data() else { continue };
        if first.len() + all.len() + chunk.len() > bytes_max {
            return Ok(None);
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
    Ok(Some(if all.is_empty() { first } else { all.freeze() }))
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
