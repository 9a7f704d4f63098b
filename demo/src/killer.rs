//! Kills workers, so that a run shows what a crash between any two steps does to the credits: nothing.

use fastrand::Rng;
use grantonce_testkit::children::{Child, ChildError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often a worker is killed.
const EVERY: Duration = Duration::from_secs(1);

/// How long a new one may take until it works. While it does not, none is killed: else nobody ever would.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// Kills a worker a second (`kill -9`) and starts it again at once, until `stop`. Gives the number of kills; all workers
/// work again then.
pub(crate) async fn kill_workers(
    workers: &mut [Child],
    mut rng: Rng,
    stop: &CancellationToken,
) -> Result<u64, ChildError> {
    let mut kills = 0;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is now.
    ticks.tick().await;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let Some(victim) = (!workers.is_empty()).then(|| rng.usize(0..workers.len())) else { continue };
        if let Some(worker) = workers.get_mut(victim) {
            worker.restart().await?;
            kills += 1;
            worker.consuming(READY_DEADLINE).await?;
        }
    }
    Ok(kills)
}

#[cfg(test)]
mod tests {
    use super::*;
    use grantonce_testkit::children::Children;

    #[tokio::test]
    async fn workers_are_killed_and_all_are_back_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let shell = Children::new("/bin/sh", folder.path());
        let script = r#"echo '{"event":"consuming"}' >&2; exec sleep 1000"#;
        let mut workers = Vec::new();
        for name in ["worker-1", "worker-2"] {
            workers.push(shell.start(name, &["-c", script]).await.unwrap());
        }
        let stop = CancellationToken::new();
        let after = async {
            tokio::time::sleep(EVERY * 5 / 2).await;
            stop.cancel();
        };
        let (kills, ()) = tokio::join!(kill_workers(&mut workers, Rng::with_seed(1), &stop), after);
        // One where starting it again took longer than a second.
        assert!((1..=2).contains(&kills.unwrap()));
        for worker in &mut workers {
            assert_eq!(worker.try_ended().unwrap(), None);
        }
    }
}
