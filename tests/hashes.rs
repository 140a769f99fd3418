//! The logits of whole models as 64-bit hashes, the same on every CPU and for every build: whatever
//! changes a bit of the arithmetic shows here.
//!
//! The constants may change only together with `NUMERICS_VERSION` (`docs/numerics.md`).

#[path = "support/timeline.rs"]
mod timeline;
#[path = "support/tiny.rs"]
mod tiny;
#[path = "support/weights.rs"]
mod weights;

use std::io::Write;
use std::path::Path;

use lightgpt::gguf::Source;
use lightgpt::kernel::{self, Isa, Kernels};
use lightgpt::quant::{self, Format};

use timeline::Timeline;
use tiny::{Sizes, Tiny};

/// The version that the hashes belong to.
const VERSION: u32 = 1;

/// The hash of the model that ships with the library.
const SHIPPED: u64 = 0x18e5_ab7d_3b60_8372;

/// The hash of a random model whose keys fall into two spans.
const SPANS: u64 = 0x27b2_5ab8_06fb_da78;

/// The hashes of small random models, one a kind of state that layers may keep.
const STATES: [(&str, u64); 5] = [
    ("lfm2", 0x106d_dede_892f_2fc6),
    ("mamba", 0xa020_33dd_a1b4_8576),
    ("mamba2", 0x8156_622e_da0e_5602),
    ("falcon-h1", 0x5b73_a7bb_4bcb_9361),
    ("qwen3next", 0x3c28_3d13_24b9_badc),
];

/// The hashes of small random models, one a format.
const FORMATS: [(&str, u64); 28] = [
    ("F32", 0x3546_ad68_d9fa_e747),
    ("F16", 0x7671_74e4_69bb_6147),
    ("Q4_0", 0x8511_a4e8_9250_4a75),
    ("Q4_1", 0x67ce_ebff_cc59_4fce),
    ("Q5_0", 0x0d69_b26e_e332_c42f),
    ("Q5_1", 0x3331_7eee_bcb8_7836),
    ("Q8_0", 0x38cd_e948_f541_b3ed),
    ("Q2_K", 0x532a_85a1_a36a_8735),
    ("Q3_K", 0x5af0_ac98_a29f_c79c),
    ("Q4_K", 0xcca9_5e6f_386e_11d4),
    ("Q5_K", 0xeebb_1289_6a6f_bfcd),
    ("Q6_K", 0x30e7_0f72_fb9a_0da0),
    ("IQ4_NL", 0x3b0d_6a63_bddc_81b1),
    ("IQ4_XS", 0xebac_6dad_7920_98d9),
    ("BF16", 0x812c_e6c7_85e1_8ce5),
    ("IQ1_S", 0x6b45_905a_ae98_5ad3),
    ("IQ1_M", 0xc16d_54f0_1589_ef6e),
    ("IQ2_XXS", 0x9e99_2a75_8005_1b63),
    ("IQ2_XS", 0x80da_ecc1_897f_e5a2),
    ("IQ2_S", 0xfdd5_7dd2_8ceb_ead9),
    ("IQ3_XXS", 0x3339_3b05_23e6_b9c3),
    ("IQ3_S", 0x67c4_895a_85be_b0a7),
    ("TQ1_0", 0x0b58_ba94_d0ee_70c7),
    ("TQ2_0", 0xf766_cd28_a1e8_23e2),
    ("MXFP4", 0x5ee3_4233_623f_f03d),
    ("NVFP4", 0x38bf_fc47_42c6_518d),
    ("Q1_0", 0x3986_19da_51cc_b87f),
    ("Q2_0", 0xca50_767b_a221_ed58),
];

/// Rows of many matrices are no multiple of any panel, 576 columns none of 256.
const SIZES: Sizes = Sizes {
    dim: 576,
    heads: 9,
    kv_heads: 3,
    k_dim: 10,
    v_dim: 64,
    hidden: 96,
    layers: 2,
    vocab: 75,
    context: 64,
};

/// For blocks of 64 and more.
const WIDE: Sizes = Sizes {
    dim: 768,
    heads: 3,
    kv_heads: 1,
    k_dim: 22,
    v_dim: 256,
    hidden: 256,
    layers: 1,
    vocab: 75,
    context: 64,
};

/// Small, with room for more than one span.
const LONG: Sizes = Sizes {
    dim: 96,
    heads: 3,
    kv_heads: 1,
    k_dim: 32,
    v_dim: 32,
    hidden: 96,
    layers: 1,
    vocab: 75,
    context: 300,
};

#[test]
fn every_isa_returns_the_committed_logits() {
    assert_eq!(
        lightgpt::NUMERICS_VERSION,
        VERSION,
        "what the hashes are of"
    );
    let models = models();
    let mut wrong = Vec::new();
    for kernels in kernel::available() {
        let isa = kernels.isa().name();
        for model in &models {
            let found = hash(&logits(model, kernels));
            if found != model.hash {
                wrong.push(format!("{isa}: {}: {found:#018x}", model.name));
            }
        }
        say(&format!("{isa}: {} models", models.len()));
    }
    assert!(wrong.is_empty(), "found\n{}", wrong.join("\n"));
}

/// `make test` runs the tests of whole models once for each ISA; this one sees that it does.
#[test]
fn the_environment_chooses_the_isa() {
    let Ok(name) = std::env::var("LIGHTGPT_ISA") else {
        return;
    };
    let wish = Isa::from_name(&name).expect("a name of an ISA");
    match kernel::available().any(|kernels| kernels.isa() == wish) {
        true => assert_eq!(kernel::detect().isa(), wish),
        false => say(&format!("SKIPPED {name}: this CPU does not have it")),
    }
}

struct Model {
    name: &'static str,
    file: Vec<u8>,
    prompt: usize,
    hash: u64,
}

fn models() -> Vec<Model> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read(root.join(path)).expect("it is part of the checkout");
    let mut models = vec![
        Model {
            name: "shipped",
            file: read("models/tales-4m-q8_0.gguf"),
            prompt: 23,
            hash: SHIPPED,
        },
        Model {
            name: "spans",
            file: random_model(LONG, Format::Q8_0),
            prompt: 270,
            hash: SPANS,
        },
    ];
    models.extend(STATES.map(|(name, hash)| Model {
        name,
        file: read(&format!("tests/golden/{name}/model.gguf")),
        prompt: 23,
        hash,
    }));
    let computable: Vec<Format> = Format::all().filter(|&f| quant::is_computable(f)).collect();
    assert_eq!(computable.len(), FORMATS.len(), "a hash for each format");
    for (name, hash) in FORMATS {
        let format = computable.iter().find(|format| format.name() == name);
        let format = *format.expect("a computable format");
        let sizes = if format.block_len() > 32 { WIDE } else { SIZES };
        models.push(Model {
            name,
            file: random_model(sizes, format),
            prompt: 23,
            hash,
        });
    }
    models
}

fn random_model(sizes: Sizes, format: Format) -> Vec<u8> {
    let mut tiny = Tiny::with(sizes, &|_| format);
    for (seed, tensor) in (1..).zip(&mut tiny.tensors) {
        if let [columns, rows] = tensor.dims[..] {
            let (columns, rows) = (columns as usize, rows as usize);
            let bytes = weights::random_weights(format, rows * columns, columns, seed);
            tensor.bytes = bytes.into();
        }
    }
    tiny.bytes()
}

/// The logits after each token of a prompt, and of three more, fed one by one.
fn logits(model: &Model, kernels: &'static Kernels) -> Vec<f32> {
    let mut timeline = Timeline::open_with(Source::Owned(model.file.clone()), 2, kernels);
    let vocab = timeline.vocab();
    let token = |i: usize| ((i * 2_654_435 + 17) % vocab) as u32;
    let tokens: Vec<u32> = (0..model.prompt + 3).map(token).collect();
    let mut logits = timeline.feed(&tokens[..model.prompt]);
    for token in &tokens[model.prompt..] {
        logits.extend(timeline.feed(&[*token]));
    }
    let spread = logits.iter().fold(0f32, |max, logit| max.max(logit.abs()));
    assert!(
        (0.1..100.0).contains(&spread),
        "no sensible logits: {spread}"
    );
    logits
}

/// FNV-1a of the bits, 64 bits wide.
fn hash(logits: &[f32]) -> u64 {
    let bytes = logits
        .iter()
        .flat_map(|logit| logit.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Not println!, which the test harness keeps to itself when a test passes.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
