//! The targets of `make fuzz`, run on their corpora and on a few thousand seeded mutations of these. For more
//! mutations, or others: `FUZZ_MUTATIONS=10000 FUZZ_SEED=2 cargo test --test fuzzing`.

use std::fs;
use std::path::PathBuf;

use engine::rng::Rng;

#[path = "../../fuzz/targets/mod.rs"]
mod targets;

#[allow(dead_code)]
#[path = "../behaviour/native/mod.rs"]
mod native;
#[allow(dead_code)]
#[path = "../behaviour/world.rs"]
mod world;

/// Default number of mutations per input; `FUZZ_MUTATIONS` overrides it.
const MUTATIONS: u64 = 12;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(&path).expect("read"))).collect()
}

/// One to four changes: a byte replaced, a bit flipped, a piece removed, duplicated or moved, the end cut off.
fn mutated(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=rng.next_u64() % 4 {
        let at = if bytes.is_empty() { 0 } else { rng.next_u64() as usize % bytes.len() };
        let to = (at + 1 + rng.next_u64() as usize % 16).min(bytes.len());
        let from = at.min(to);
        match rng.next_u64() % 6 {
            _ if bytes.is_empty() => bytes.push(rng.next_u64() as u8),
            0 => bytes[at] = rng.next_u64() as u8,
            1 => bytes[at] ^= 1 << (rng.next_u64() % 8),
            2 => drop(bytes.drain(from..to)),
            3 => {
                let piece = bytes[from..to].to_vec();
                drop(bytes.splice(from..from, piece));
            }
            4 => bytes[from..to].fill(0xff),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

fn feed(target: &str) {
    let (_, run) = targets::TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    run(b"");
    let mutations = setting("FUZZ_MUTATIONS", MUTATIONS);
    let mut rng = Rng::new(setting("FUZZ_SEED", 16));
    let inputs = corpus(target);
    assert!(!inputs.is_empty(), "fuzz/corpus/{target} is empty");
    for (path, bytes) in &inputs {
        // Shown when the target panics.
        println!("{}", path.display());
        run(bytes);
        for _ in 0..mutations {
            let input = mutated(bytes, &mut rng);
            let panicked = std::panic::catch_unwind(|| run(&input)).is_err();
            assert!(!panicked, "{target} broke a promise with b\"{}\"", input.escape_ascii());
        }
    }
}

macro_rules! each {
    ($($target:ident),+ $(,)?) => {
        $(#[test] fn $target() { feed(stringify!($target)); })+

        #[test]
        fn every_target_is_here() {
            let known: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(known, [$(stringify!($target)),+]);
        }
    };
}

each!(admin, affinity, configuration, load_reports, prometheus, requests, shared, status, zones);
