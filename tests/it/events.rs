//! The pages about providers' events match the tables in the code.

use grantonce::webhook::{Endpoint, page};
use std::path::Path;

/// With `UPDATE_DOCS=1`, the pages are written anew.
#[test]
fn the_pages_about_events_are_made_from_the_tables() {
    let update = std::env::var_os("UPDATE_DOCS").is_some();
    let mut pages = 0;
    for endpoint in Endpoint::ALL {
        let Some(made) = page(*endpoint) else { continue };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/events-{}.md", endpoint.path()));
        if update {
            std::fs::write(&path, &made).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == made,
            "{} differs from the table: UPDATE_DOCS=1 cargo test --features failpoints --test it events",
            path.display()
        );
        pages += 1;
    }
    assert_eq!(pages, 3, "Stripe, PayPal and Adyen have a table");
}
