//! Makes the built-in data set: 1,500 users of a hobby shop in eight planted groups, 80 items, half a year of events.
//!
//! `cargo run --example make_dataset -- examples/data` writes the same three files on every machine; they are what
//! `item-affinity demo` trains on, and what the tests know the right answer for.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

const SEED: u64 = 149;
const USERS: usize = 1_500;
const DAYS: i64 = 182;
/// 2026-01-01T00:00:00Z.
const START: i64 = 1_767_225_600;
const COUNTRIES: [&str; 4] = ["DE", "FR", "GB", "US"];

/// Category and its items; the first item of a category is its most popular one.
const CATALOGUE: [(&str, [&str; 10]); 8] = [
    (
        "Coffee",
        [
            "Hand grinder",
            "Espresso beans",
            "Paper filters",
            "Moka pot",
            "Milk frother",
            "Drip kettle",
            "Scale with timer",
            "Descaler",
            "Cupping spoon",
            "Travel mug",
        ],
    ),
    (
        "Garden",
        [
            "Tomato seeds",
            "Potting soil",
            "Secateurs",
            "Watering can",
            "Compost bin",
            "Raised bed",
            "Plant labels",
            "Hose nozzle",
            "Slug barrier",
            "Kneeling pad",
        ],
    ),
    (
        "Running",
        [
            "Road shoes",
            "Trail shoes",
            "Energy gels",
            "Running socks",
            "Headlamp",
            "Hydration vest",
            "Foam roller",
            "Race belt",
            "Reflective bands",
            "Blister plasters",
        ],
    ),
    (
        "Baking",
        [
            "Bread flour",
            "Dry yeast",
            "Proofing basket",
            "Dough scraper",
            "Baking steel",
            "Cake tin",
            "Piping bags",
            "Vanilla pods",
            "Rolling pin",
            "Oven gloves",
        ],
    ),
    (
        "Camping",
        [
            "Gas cartridge",
            "Two-person tent",
            "Sleeping mat",
            "Camp stove",
            "Water filter",
            "Dry bags",
            "Folding chair",
            "Tent pegs",
            "Titanium pot",
            "Guy ropes",
        ],
    ),
    (
        "Photography",
        [
            "Film 35 mm",
            "Memory card",
            "Camera strap",
            "Tripod",
            "Lens cloth",
            "ND filter",
            "Spare battery",
            "Light meter",
            "Photo paper",
            "Lens cap",
        ],
    ),
    (
        "Music",
        [
            "Guitar strings",
            "Plectrums",
            "Capo",
            "Tuner",
            "Instrument cable",
            "Drum sticks",
            "Sheet stand",
            "Metronome",
            "Valve oil",
            "Reeds",
        ],
    ),
    (
        "Painting",
        [
            "Watercolour set",
            "Cold-pressed paper",
            "Round brushes",
            "Acrylic white",
            "Stretched canvas",
            "Palette knife",
            "Masking fluid",
            "Easel",
            "Varnish",
            "Sketchbook",
        ],
    ),
];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("say where to write: make_dataset -- <folder>")?);
    std::fs::create_dir_all(&folder)?;
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let (users, interests) = users(&mut rng)?;
    write(&folder, "users.parquet", &users)?;
    write(&folder, "items.parquet", &items()?)?;
    write(&folder, "interactions.parquet", &interactions(&mut rng, &interests)?)?;
    Ok(())
}

/// Each user's planted interest, by position in the catalogue.
fn users(rng: &mut ChaCha8Rng) -> Result<(RecordBatch, Vec<usize>), Box<dyn Error>> {
    let interests = (0..USERS).map(|_| rng.random_range(0..CATALOGUE.len())).collect::<Vec<_>>();
    let countries = (0..USERS).map(|_| COUNTRIES[rng.random_range(0..COUNTRIES.len())]).collect::<Vec<_>>();
    let batch = RecordBatch::try_from_iter([
        ("user_id", Arc::new(StringArray::from_iter_values((0..USERS).map(user_id))) as ArrayRef),
        ("country", Arc::new(StringArray::from(countries))),
        ("interest", Arc::new(StringArray::from_iter_values(interests.iter().map(|i| CATALOGUE[*i].0)))),
    ])?;
    Ok((batch, interests))
}

fn items() -> Result<RecordBatch, Box<dyn Error>> {
    let all = || (0..CATALOGUE.len()).flat_map(|group| (0..10).map(move |item| (group, item)));
    Ok(RecordBatch::try_from_iter([
        ("item_id", texts(all().map(|(g, i)| item_id(g, i)))),
        ("title", texts(all().map(|(g, i)| CATALOGUE[g].1[i].to_owned()))),
        ("category", texts(all().map(|(g, _)| CATALOGUE[g].0.to_owned()))),
        ("price", Arc::new(Float64Array::from(all().map(|(g, i)| price(g, i)).collect::<Vec<_>>()))),
    ])?)
}

fn texts(values: impl Iterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from(values.collect::<Vec<_>>()))
}

/// Three of four events are in the user's interest; inside a category the n-th item has a weight of 1 / (n + 1).
fn interactions(rng: &mut ChaCha8Rng, interests: &[usize]) -> Result<RecordBatch, Box<dyn Error>> {
    let mut rows = Vec::new();
    for (user, interest) in interests.iter().enumerate() {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let events = 2 + (9.0 * -f64::ln(1.0 - rng.random::<f64>())) as usize;
        for _ in 0..events.min(60) {
            let group = if rng.random::<f64>() < 0.75 { *interest } else { rng.random_range(0..CATALOGUE.len()) };
            let item = popular(rng);
            let time = START + rng.random_range(0..DAYS * 1_440) * 60;
            let bought = rng.random::<f64>() < 0.3;
            rows.push((time, user, group, item, bought));
        }
    }
    rows.sort_unstable();
    Ok(RecordBatch::try_from_iter([
        ("user_id", Arc::new(StringArray::from_iter_values(rows.iter().map(|r| user_id(r.1)))) as ArrayRef),
        ("item_id", Arc::new(StringArray::from_iter_values(rows.iter().map(|r| item_id(r.2, r.3))))),
        ("timestamp", Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)))),
        (
            "event_type",
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| if r.4 { "purchase" } else { "view" }))),
        ),
        (
            "event_value",
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| if r.4 { price(r.2, r.3) } else { 0.0 }))),
        ),
    ])?)
}

fn popular(rng: &mut ChaCha8Rng) -> usize {
    let total: f64 = (1..=10).map(|n| 1.0 / f64::from(n)).sum();
    let mut left = rng.random::<f64>() * total;
    (0..10)
        .find(|n| {
            left -= 1.0 / (*n as f64 + 1.0);
            left <= 0.0
        })
        .unwrap_or(9)
}

fn user_id(user: usize) -> String {
    format!("U{user:04}")
}

fn item_id(group: usize, item: usize) -> String {
    format!("{}-{:02}", CATALOGUE[group].0.to_uppercase(), item + 1)
}

fn price(group: usize, item: usize) -> f64 {
    4.5 + ((group * 37 + item * 53) % 90) as f64
}

fn write(folder: &Path, name: &str, batch: &RecordBatch) -> Result<(), Box<dyn Error>> {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(9)?)).build();
    let file = File::create(folder.join(name))?;
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties))?;
    writer.write(batch)?;
    writer.close()?;
    println!("{name}: {} rows", batch.num_rows());
    Ok(())
}
