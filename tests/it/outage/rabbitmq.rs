//! RabbitMQ restarts and crashes.

use super::{all_granted_once, more_grants, posting, receiver, world_on};
use crate::support::{PrivateServers, Server, eventually};
use std::sync::atomic::Ordering;

#[tokio::test]
async fn what_was_accepted_outlives_a_restart_and_a_crash_of_rabbitmq() {
    let servers = PrivateServers::start(Server::Rabbitmq).await;
    let world = world_on(&servers).await;
    let (_receiver, poster) = receiver(&world).await;
    let worker = world.start_worker();
    let (traffic, put_off) = posting(&poster);
    more_grants(&world, 20).await;
    for is_crash in [false, true] {
        if is_crash {
            servers.crash(Server::Rabbitmq).await
        } else {
            servers.down(Server::Rabbitmq).await
        }
        // Webhooks that were in progress may still count as accepted. From here on none can be accepted.
        let (before, mut taken) = (put_off.load(Ordering::Relaxed), traffic.taken());
        eventually("all that came before is answered", async || {
            let last = std::mem::replace(&mut taken, traffic.taken());
            put_off.load(Ordering::Relaxed) >= before + 8 && last == taken
        })
        .await;
        let before = put_off.load(Ordering::Relaxed);
        eventually("webhooks are put off", async || put_off.load(Ordering::Relaxed) >= before + 20).await;
        assert_eq!(traffic.taken(), taken, "a webhook was accepted without a broker");
        servers.up(Server::Rabbitmq).await;
        eventually("webhooks are accepted again", async || traffic.taken() > taken).await;
        more_grants(&world, 20).await;
    }
    let sent = traffic.stop().await + 1;
    all_granted_once(&world, worker, sent).await;
}
