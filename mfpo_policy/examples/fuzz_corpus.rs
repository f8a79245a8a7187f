//! Writes the corpus of the fuzz target anew, one valid bundle of each kind: `cargo run --release -p mfpo_policy --example
//! fuzz_corpus`. Needed only when the format changes; the tests check that every file of it is valid.

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/bundles/seeds.rs"]
mod seeds;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/bundle_open");
    std::fs::create_dir_all(&corpus)?;
    for (name, bytes) in seeds::seeds() {
        let file = corpus.join(format!("{name}.safetensors"));
        std::fs::write(&file, bytes)?;
        println!("{}", file.display());
    }
    Ok(())
}
