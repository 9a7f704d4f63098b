//! What the first page tells of its own process.

use super::server::{ADA, Console, Visitor};
use crate::support::eventually;
use grantonce::broker::{self, DEAD_QUEUE};
use lapin::options::QueueDeleteOptions;

#[tokio::test]
async fn o06_the_first_page_says_in_a_sentence_what_its_process_lacks() {
    let console = Console::start().await;
    let ada = Visitor::logged_in(&console.base, ADA).await;
    let lacks = async || ada.get("/").await.text.contains("This process is not ready.");
    eventually("nothing is missing", async || !lacks().await).await;
    let (connection, channel) = console.world.channel().await;
    channel.queue_delete(DEAD_QUEUE.into(), QueueDeleteOptions::default()).await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
    eventually("the first page says so", async || {
        let page = ada.get("/").await.text;
        page.contains("ops: nothing is consumed from fulfilment.dead: ")
            && page.contains("<code>holds_a_consumer</code>")
    })
    .await;
    broker::declare(&console.world.amqp_url.parse().unwrap(), &console.world.retry_delays).await.unwrap();
    eventually("nothing is missing again", async || !lacks().await).await;
}
