//! Reads the body of a request within bounds. The bound counts the bytes that come, not the promise of the headers.

use super::problem::Problem;
use axum::body::Body;
use axum::body::HttpBody as _;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// How long the rest of a too long body is read and thrown away. A client that is still sending when the connection
/// closes would not see the answer.
const READ_ON: Duration = Duration::from_millis(500);

/// And at most this many times the bound.
const READ_ON_FACTOR: usize = 4;

/// Reads a body of at most `bytes_max` bytes. A longer body is answered with 413 soon, and a body that misses the
/// deadline with 408.
pub async fn read_body(request: Request, bytes_max: usize, deadline: Duration) -> Result<Bytes, Problem> {
    let mut body = request.into_body();
    // By the promise of the headers, if there is one.
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

/// Reads what a client still sends, within bounds.
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
    // The answer is the same when the time is over.
    let _over = tokio::time::timeout(READ_ON, rest).await;
}

/// The whole body, or `None` if it is longer than the bound.
async fn collect(body: &mut Body, bytes_max: usize) -> Result<Option<Bytes>, Problem> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::bad_request("the body broke off"))?;
        let Ok(chunk) = frame.into_data() else { continue };
        if first.len() + all.len() + chunk.len() > bytes_max {
            return Ok(None);
        }
        // Most bodies come in one piece and need no copy.
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

/// Reads a JSON body, see [`read_body`]. Another media type is answered with 415. A body of another form is answered
/// with 400, which names the field.
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
        // The path "." is the whole body.
        if path == "." { Problem::bad_request(cause) } else { problem.with_field(path, cause) }
    })?;
    json.end().map_err(|_| Problem::bad_request("something follows the JSON value"))?;
    Ok(value)
}
