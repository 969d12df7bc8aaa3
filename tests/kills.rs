//! P1, P2: kill -9 at any moment of a training or a segment job leaves the old version or the new one, never a mixture,
//! and the same command completes it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use item_affinity_storage::{Artifact, Commit, Location, Retention, Stores, Versions};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::common::{Ended, S3Server, fewer_interactions, fingerprint, item_affinity, run, small_interactions};

/// Kills of one test run, over all places; `ITEM_AFFINITY_KILLS` asks for more.
const KILLS: usize = 240;

type Fingerprint = Vec<(String, String)>;

/// One command, of which two variants take turns, at one place.
struct Ground {
    name: &'static str,
    artifact: Artifact,
    place: String,
    stores: Stores,
    environment: Vec<(&'static str, String)>,
    /// The command without its place and variant.
    command: Vec<String>,
    variants: [[String; 2]; 2],
    /// What makes the version that has to be there before.
    before: Vec<String>,
    kills: usize,
}

#[derive(Default)]
struct Tally {
    killed: usize,
    landed: usize,
    reruns: usize,
    reads: u64,
    recovery: Vec<Duration>,
}

impl Ground {
    fn command(&self, place: &str, variant: usize) -> Command {
        let option = if self.artifact == Artifact::Segments { "--output" } else { "--solution" };
        let mut command = item_affinity();
        command.args(&self.command).args([option, place]).args(&self.variants[variant]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn versions(&self, place: &str) -> Versions {
        Versions::new(&self.stores, Location::parse(place).unwrap(), self.artifact).unwrap()
    }

    /// Makes what has to be there before; gives the number of its version.
    fn prepare(&self, place: &str) -> u64 {
        if self.before.is_empty() {
            return 0;
        }
        let mut command = item_affinity();
        command.args(&self.before).args(["--solution", place]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let ended = run(&mut command);
        assert_eq!(ended.code, 0, "{ended:?}");
        1
    }

    /// What each variant gives when nobody kills it, and how long it takes.
    async fn references(&self) -> ([Fingerprint; 2], Duration) {
        let place = format!("{}-reference", self.place);
        let before = self.prepare(&place);
        let mut longest = Duration::ZERO;
        for variant in 0..2 {
            let begun = Instant::now();
            let ended = run(&mut self.command(&place, variant));
            assert_eq!(ended.code, 0, "{ended:?}");
            longest = longest.max(begun.elapsed());
        }
        let versions = self.versions(&place);
        let read = async |number| fingerprint(&versions.read(number).await.unwrap());
        let references = [read(before + 1).await, read(before + 2).await];
        assert_ne!(references[0], references[1], "{}", self.name);
        (references, longest)
    }

    /// The newest version, every byte of it compared with its commit.
    async fn newest(&self) -> Option<Commit> {
        let versions = self.versions(&self.place);
        let newest = versions.latest().await.unwrap()?;
        let found = versions.verify(Some(newest.version), false).await.unwrap();
        assert!(found.faults.is_empty(), "{}: {:?}", self.name, found.faults);
        Some(newest)
    }

    /// Kills until there were enough kills, and checks after each.
    async fn survive(&self, random: &mut StdRng, seed: u64) -> Tally {
        // How long a command takes that nobody kills, by the last one: other work on the machine comes and goes.
        let (references, mut takes) = self.references().await;
        let mut tally = Tally::default();
        let mut committed = self.prepare(&self.place);
        let first = self.newest().await.as_ref().map(fingerprint);
        let mut content: Option<usize> = None;
        let mut variant = 0;
        let told = |what: &str| format!("seed {seed}, {}: {what}", self.name);
        while tally.killed < self.kills {
            let (begun, after) = (Instant::now(), takes.mul_f64(random.random_range(0.0..1.1)));
            let mut child =
                self.command(&self.place, variant).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            while begun.elapsed() < after && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let ran = begun.elapsed();
            child.kill().unwrap();
            let killed = child.wait().unwrap().code().is_none();
            if !killed {
                takes = ran;
            }
            tally.killed += usize::from(killed);

            let newest = self.newest().await;
            let number = newest.as_ref().map_or(0, |commit| commit.version);
            let landed = number == committed + 1;
            assert!(landed || number == committed, "{}", told(&format!("version {number} after {committed}")));
            if landed {
                (committed, content) = (number, Some(variant));
                tally.landed += usize::from(killed);
            }
            let found = newest.as_ref().map(fingerprint);
            let expected = content.map_or(first.as_ref(), |of| Some(&references[of]));
            assert_eq!(found.as_ref(), expected, "{}", told("a mixture"));

            // Some runs are killed again and again before one is let through.
            if landed || random.random_bool(0.3) {
                let begun = Instant::now();
                let again = run(&mut self.command(&self.place, variant));
                let ran = begun.elapsed();
                if !landed {
                    takes = ran;
                }
                if killed && !landed {
                    tally.recovery.push(ran);
                }
                let (says, number) = if landed { ("already done as", number) } else { ("committed", number + 1) };
                let expected = format!("{says} version {number}");
                assert!(again.code == 0 && again.stdout.contains(&expected), "{} {again:?}", told(&expected));
                let newest = self.newest().await.unwrap();
                assert_eq!((newest.version, fingerprint(&newest)), (number, references[variant].clone()));
                (committed, content) = (number, Some(variant));
                tally.reruns += 1;
                variant = 1 - variant;
            }
        }
        let all = self.versions(&self.place).verify(None, true).await.unwrap();
        assert!(all.faults.is_empty() && all.versions.len() as u64 == committed, "{}", told("not all versions whole"));
        tally
    }

    /// Reads like any reader while jobs are killed: the newest version is whole at every moment.
    async fn read_on(&self, done: &AtomicBool, reads: &AtomicU64) {
        while !done.load(Ordering::Relaxed) {
            self.newest().await;
            reads.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn seed() -> u64 {
    std::env::var("ITEM_AFFINITY_SEED").ok().map_or_else(rand::random, |text| text.parse().unwrap())
}

/// This share of all kills.
fn share(of: f64) -> usize {
    let all = std::env::var("ITEM_AFFINITY_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    (all as f64 * of).ceil() as usize
}

fn survive(grounds: &[Ground]) {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    for ground in grounds {
        let done = AtomicBool::new(false);
        let reads = AtomicU64::new(0);
        let begun = Instant::now();
        let mut tally = std::thread::scope(|scope| {
            scope.spawn(|| runtime().block_on(ground.read_on(&done, &reads)));
            let random = &mut random;
            let worker = scope.spawn(|| runtime().block_on(ground.survive(random, seed)));
            let tally = worker.join();
            done.store(true, Ordering::Relaxed);
            tally.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        tally.reads = reads.into_inner();
        tally.recovery.sort();
        println!(
            "{}: {} killed, {} of them after their commit, 0 mixtures in {} reads, all {} reruns completed, median \
             recovery {} ms, {:.0} s (seed {seed})",
            ground.name,
            tally.killed,
            tally.landed,
            tally.reads + tally.killed as u64,
            tally.reruns,
            tally.recovery[tally.recovery.len() / 2].as_millis(),
            begun.elapsed().as_secs_f64(),
        );
    }
}

fn train(interactions: &Path) -> Vec<String> {
    let arguments = ["train", "--quiet", "--hidden-dimension", "32", "--iterations", "2", "--interactions"];
    arguments.map(str::to_owned).into_iter().chain([interactions.display().to_string()]).collect()
}

fn segment(solution: &str) -> Vec<String> {
    ["segment", "--quiet", "--item", "item-03", "--item", "item-08", "--reasons", "2", "--solution", solution]
        .map(str::to_owned)
        .to_vec()
}

fn variants(option: &str, values: [&str; 2]) -> [[String; 2]; 2] {
    values.map(|value| [option.to_owned(), value.to_owned()])
}

fn solution(folder: &Path, interactions: &Path) -> String {
    let solution = folder.join("solution").display().to_string();
    let ended: Ended = run(item_affinity().args(train(interactions)).args(["--solution", &solution]));
    assert_eq!(ended.code, 0, "{ended:?}");
    format!("{solution}@1")
}

#[test]
fn p1_p2_kill_9_on_local_disk_leaves_the_old_version_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let interactions = folder.path().join("interactions.parquet");
    let fewer = folder.path().join("fewer.parquet");
    small_interactions(&interactions);
    fewer_interactions(&fewer);
    let ground = |name, artifact, place: &str, command, variants, kills| Ground {
        name,
        artifact,
        place: folder.path().join(place).display().to_string(),
        stores: Stores::in_memory(),
        environment: Vec::new(),
        command,
        variants,
        before: Vec::new(),
        kills,
    };
    let grounds = [
        ground(
            "train on local disk",
            Artifact::SolutionVersion,
            "trained",
            train(&interactions),
            variants("--seed", ["1", "2"]),
            share(0.3),
        ),
        ground(
            "segment on local disk",
            Artifact::Segments,
            "segments",
            segment(&solution(folder.path(), &interactions)),
            variants("--num-results", ["5", "7"]),
            share(0.4),
        ),
        Ground {
            before: train(&interactions),
            ..ground(
                "refresh on local disk",
                Artifact::SolutionVersion,
                "refreshed",
                vec!["refresh".to_owned(), "--quiet".to_owned()],
                variants("--interactions", [&interactions, &fewer].map(|path| path.to_str().unwrap())),
                share(0.2),
            )
        },
    ];
    survive(&grounds);
    for ground in &grounds {
        runtime().block_on(leftovers(ground));
    }
}

/// P6: what the killed runs left is found and removed, and the versions stay whole.
async fn leftovers(ground: &Ground) {
    let root = Path::new(&ground.place);
    for file in crate::common::files_below(root) {
        let file = std::fs::File::options().write(true).open(root.join(file)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(8 * 86_400)).unwrap();
    }
    let versions = ground.versions(&ground.place);
    let found = versions.collect(&Retention::default(), true).await.unwrap();
    assert!(found.failed.is_empty() && found.young == 0, "{found:?}");
    let whole = versions.verify(None, true).await.unwrap();
    assert!(whole.faults.is_empty());
    let mut committed = Vec::new();
    for number in versions.numbers().await.unwrap() {
        committed.push(versions.read(number).await.unwrap().run_id);
    }
    let strays = crate::common::files_below(root)
        .into_iter()
        .map(|file| file.display().to_string())
        .filter(|file| !file.ends_with("/latest.json") && !file.starts_with("_item_affinity/commits/0"))
        .filter(|file| !committed.iter().any(|run| file.contains(run)))
        .collect::<Vec<_>>();
    assert!(strays.is_empty(), "{strays:?}");
    let files: usize = found.collected.iter().map(|group| group.files.len()).sum();
    println!(
        "{}: gc removed {files} files that {} killed runs left, 0 of a version",
        ground.name,
        found.collected.len()
    );
}

#[test]
fn p1_p2_kill_9_on_s3_leaves_the_old_version_or_the_new_one() {
    let Some(server) = S3Server::start("p1_p2_kill_9_on_s3_leaves_the_old_version_or_the_new_one") else { return };
    let folder = tempfile::tempdir().unwrap();
    let interactions = folder.path().join("interactions.parquet");
    small_interactions(&interactions);
    let ground = |name, artifact, place: &str, command, variants, kills| Ground {
        name,
        artifact,
        place: format!("s3://lake/{place}"),
        stores: server.stores(),
        environment: server.environment().to_vec(),
        command,
        variants,
        before: Vec::new(),
        kills,
    };
    survive(&[
        ground(
            "train on S3",
            Artifact::SolutionVersion,
            "kills/trained",
            train(&interactions),
            variants("--seed", ["1", "2"]),
            share(0.15),
        ),
        ground(
            "segment on S3",
            Artifact::Segments,
            "kills/segments",
            segment(&solution(folder.path(), &interactions)),
            variants("--num-results", ["5", "7"]),
            share(0.15),
        ),
    ]);
}
