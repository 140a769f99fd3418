//! Each special thing that a golden model has, switched off: its golden must fail then, or it would
//! prove nothing.

#![allow(clippy::print_stdout, reason = "tests report what they measured")]

#[path = "support/golden.rs"]
mod golden;
#[path = "support/timeline.rs"]
mod timeline;

use std::path::Path;

use lightgpt::gguf::Source;
use lightgpt::kernel::{self, Nonlinearity, Window};
use lightgpt::model::Network;
use lightgpt::model::spec::{Curve, Gating, Pooling, QkNorm, RecurrenceKind};
use lightgpt::model::weights::{ExpertWeights, Layer, RecurrentWeights, StateWeights};
use lightgpt::ops::experts::Gate;
use lightgpt::ops::norm::{Norm, NormKind};
use lightgpt::ops::rope::{Factors, Frequencies, Rope, Scaling, Style};

use golden::{Case, is_off, largest, own_cases};
use timeline::Timeline;

/// Switches something off and says whether it was on.
type Switch = fn(&mut Network) -> bool;

/// What a model may have, and how to switch it off.
const SWITCHES: &[(&str, Switch)] = &[
    ("factor of the embedding", |n| {
        set(&mut n.spec.embedding.scale, 1.0)
    }),
    ("norm of the embedding", |n| {
        n.weights.embedding_norm.take().is_some()
    }),
    ("learned positions", |n| {
        n.weights.positions.take().is_some()
    }),
    ("mean of norms", |n| {
        let is_layer = n.spec.norm.kind == NormKind::Layer;
        for norm in norms(n).into_iter().filter(|_| is_layer) {
            norm.kind = NormKind::Rms;
        }
        is_layer
    }),
    ("biases of norms", |n| {
        norms(n)
            .into_iter()
            .fold(false, |on, norm| norm.bias.take().is_some() | on)
    }),
    ("norms behind blocks", |n| {
        each_layer(n, |layer| {
            layer.attention_post_norm.take().is_some() | layer.ffn_post_norm.take().is_some()
        })
    }),
    ("norms of queries and keys", |n| {
        set(&mut n.spec.qk_norm, QkNorm::None)
    }),
    ("order of norms and rotation", |n| match n.spec.qk_norm {
        QkNorm::Before if turns(n) => set(&mut n.spec.qk_norm, QkNorm::Behind),
        QkNorm::Behind if turns(n) => set(&mut n.spec.qk_norm, QkNorm::Before),
        _ => false,
    }),
    ("parallel blocks", |n| set(&mut n.spec.parallel, false)),
    ("factor of blocks", |n| set(&mut n.spec.residual_scale, 1.0)),
    ("biases of attention", |n| {
        each_layer(n, |layer| {
            let all = layer.qkv.iter_mut().chain(&mut layer.attention_out);
            all.fold(false, |on, linear| linear.bias.take().is_some() | on)
        })
    }),
    ("biases of the network", |n| {
        each_layer(n, |layer| {
            let linears = layer
                .ffn
                .iter_mut()
                .flat_map(|ffn| ffn.inputs.iter_mut().chain([&mut ffn.down]));
            linears.fold(false, |on, linear| linear.bias.take().is_some() | on)
        })
    }),
    ("bias of the output", |n| {
        let output = n.weights.output.as_mut();
        output.is_some_and(|output| output.bias.take().is_some())
    }),
    ("rotation", |n| {
        let was_on = turns(n);
        n.spec.each.iter_mut().for_each(|layer| layer.rope = None);
        was_on
    }),
    ("rotation of some layers only", |n| {
        let first = (!n.spec.ropes.is_empty()).then_some(0);
        let layers = n.spec.each.iter_mut();
        let attending = layers.filter(|layer| layer.mixer.attends());
        attending.fold(false, |on, layer| set(&mut layer.rope, first) | on)
    }),
    ("pairs of the rotation", |n| {
        let opposite = |style| match style {
            Style::Halves => Style::Interleaved,
            Style::Interleaved => Style::Halves,
        };
        n.spec
            .ropes
            .iter_mut()
            .for_each(|rope| rope.style = opposite(rope.style));
        turns(n)
    }),
    ("scaling of the rotation", |n| {
        change_ropes(n, |rope| set(&mut rope.scaling, Scaling::None))
    }),
    ("magnitude of the rotation", |n| {
        change_ropes(n, |rope| set(&mut rope.magnitude, 1.0))
    }),
    ("factors of the rotation", |n| {
        let plain: Vec<Frequencies> = frequencies(&n.spec.ropes);
        let differ = |(a, b): (&Frequencies, &Frequencies)| angles(a) != angles(b);
        let had = n.weights.frequencies.iter().zip(&plain).any(differ);
        n.weights.frequencies = plain;
        had
    }),
    ("factor of scores", |n| {
        let plain = 1.0 / (n.spec.latent.map_or(n.spec.k_dim, |l| l.head_dim) as f32).sqrt();
        set(&mut n.spec.attention_scale, plain)
    }),
    ("bound of scores", |n| {
        set(&mut n.spec.attention_softcap, 0.0)
    }),
    ("bound of queries, keys and values", |n| {
        set(&mut n.spec.qkv_limit, 0.0)
    }),
    ("bias by distance", |n| {
        !std::mem::take(&mut n.weights.slopes).is_empty()
    }),
    ("sinks", |n| {
        each_layer(n, |layer| layer.sinks.take().is_some())
    }),
    ("temperature", |n| n.spec.temperature.take().is_some()),
    ("windows", |n| {
        let all = match n.spec.is_causal() {
            true => Window::All,
            false => Window::Both,
        };
        n.spec
            .each
            .iter_mut()
            .fold(false, |on, layer| set(&mut layer.window, all) | on)
    }),
    ("sight of what is behind", |n| {
        let sees = !n.spec.is_causal();
        for layer in &mut n.spec.each {
            layer.window = match layer.window {
                Window::Both => Window::All,
                Window::Around(reach) => Window::Sliding(reach + 1),
                causal => causal,
            };
        }
        sees
    }),
    ("kinds of text", |n| n.weights.segments.take().is_some()),
    ("norms of sums", |n| {
        each_layer(n, |layer| {
            layer.attention_sum_norm.take().is_some() | layer.ffn_sum_norm.take().is_some()
        })
    }),
    ("the second norm of sums", |n| {
        each_layer(n, |layer| layer.attention_second_norm.take().is_some())
    }),
    ("the last norm", |n| n.weights.output_norm.take().is_some()),
    ("pooling", |n| {
        let mut others = [Pooling::Mean, Pooling::Last].into_iter();
        let was = n.spec.pooling;
        n.spec.pooling = match n.spec.predicts || was == Pooling::Rank {
            true => was,
            false => others.find(|other| *other != was).expect("one of two"),
        };
        n.spec.pooling != was
    }),
    ("matrices behind the mean", |n| {
        n.spec.projections.clear();
        !std::mem::take(&mut n.weights.projections).is_empty()
    }),
    ("pooling before the head", |n| {
        n.spec.head.as_mut().is_some_and(|head| {
            let other = match head.pooling {
                Pooling::Last => Pooling::Mean,
                _ => Pooling::Last,
            };
            set(&mut head.pooling, other)
        })
    }),
    ("curve of the head", |n| {
        let curved = n
            .weights
            .head
            .as_ref()
            .is_some_and(|head| head.inner.is_some());
        n.spec.head.as_mut().filter(|_| curved).is_some_and(|head| {
            head.curve = match head.curve {
                Curve::Tanh => Curve::Gelu,
                Curve::Gelu => Curve::Tanh,
            };
            true
        })
    }),
    ("norm of the head", |n| {
        let head = n.weights.head.as_mut();
        head.is_some_and(|head| head.norm.take().is_some())
    }),
    ("biases of the head", |n| {
        let head = n.weights.head.as_mut();
        head.is_some_and(|head| {
            let all = head.inner.iter_mut().chain(&mut head.outputs);
            all.fold(false, |on, linear| linear.bias.take().is_some() | on)
        })
    }),
    ("activation", |n| {
        n.spec.each.iter_mut().fold(false, |on, layer| {
            set(&mut layer.nonlinearity, Nonlinearity::Silu) | on
        })
    }),
    ("bounds of the gate", |n| match n.spec.gating {
        Gating::Clamped { .. } => set(&mut n.spec.gating, Gating::Product),
        _ => false,
    }),
    ("sums of experts' weights", |n| {
        n.spec.experts.as_mut().is_some_and(|experts| {
            let routing = &mut experts.routing;
            let matters = routing.gate != Gate::SoftmaxOfChosen && routing.used > 1;
            routing.normalise = !routing.normalise;
            matters
        })
    }),
    ("factor of experts", |n| {
        n.spec
            .experts
            .as_mut()
            .is_some_and(|experts| set(&mut experts.routing.scale, 1.0))
    }),
    ("gate of experts", |n| {
        n.spec
            .experts
            .as_mut()
            .is_some_and(|experts| match experts.routing.gate {
                // Of weights that add up to 1, a softmax of the chosen leaves the same.
                Gate::Softmax => set(&mut experts.routing.gate, Gate::Sigmoid),
                _ => {
                    set(&mut experts.routing.gate, Gate::Softmax) && experts.routing.used == 1
                        || experts.routing.groups > 1
                }
            })
    }),
    ("groups of experts", |n| {
        n.spec.experts.as_mut().is_some_and(|experts| {
            let groups = experts.routing.groups;
            set(&mut experts.routing.groups_used, groups)
        })
    }),
    ("bias of the choice", |n| {
        each_experts(n, |experts| experts.bias.take().is_some())
    }),
    ("biases of the router", |n| {
        each_experts(n, |experts| {
            experts
                .router
                .iter_mut()
                .fold(false, |on, linear| linear.bias.take().is_some() | on)
        })
    }),
    ("biases of experts", |n| {
        each_experts(n, |experts| {
            let all = experts.inputs.iter_mut().chain([&mut experts.down]);
            all.fold(false, |on, linear| linear.bias.take().is_some() | on)
        })
    }),
    ("gate of the shared network", |n| {
        each_experts(n, |experts| {
            experts.router.len() > 1 && experts.router.pop().is_some()
        })
    }),
    ("shared network", |n| {
        let shares =
            |experts: &mut lightgpt::model::spec::Experts| set(&mut experts.shared_hidden, 0);
        n.spec.experts.as_mut().is_some_and(shares)
    }),
    ("weights before experts", |n| {
        n.spec
            .experts
            .as_mut()
            .is_some_and(|experts| set(&mut experts.weighs_input, false))
    }),
    ("gates of heads", |n| {
        let plain = n.spec.heads + 2;
        set(&mut n.spec.gated_heads, false)
            && each_layer(n, |layer| {
                layer.qkv.truncate(plain);
                true
            })
    }),
    ("states beside attention", |n| {
        each_layer(n, |layer| {
            !layer.qkv.is_empty() && layer.recurrent.take().is_some()
        })
    }),
    ("memory of convolutions", |n| {
        let taps = n.spec.recurrence.map_or(1, |recurrence| recurrence.taps);
        each_recurrent(n, |layer| {
            let newest = layer.taps.len() / taps;
            let older = layer.taps.len() - newest;
            layer.taps[..older].fill(0.0);
            true
        })
    }),
    ("biases of convolutions", |n| {
        each_recurrent(n, |layer| layer.taps_bias.take().is_some())
    }),
    ("norms of keys, rows and steps", |n| {
        each_recurrent(n, |layer| {
            let had = !layer.norms.is_empty();
            layer.norms.clear();
            had
        })
    }),
    ("norms of what states give", |n| {
        each_recurrent(n, |layer| layer.out_norm.take().is_some())
    }),
    ("decay of states", |n| {
        each_state(n, |state| {
            state.decay.fill(0.0);
            true
        })
    }),
    ("biases of steps", |n| {
        each_state(n, |state| match &mut state.low {
            Some((_, steps)) => steps.bias.take().is_some(),
            None => state.step_bias.as_mut().is_some_and(|bias| {
                bias.fill(0.0);
                true
            }),
        })
    }),
    ("what goes past states", |n| {
        each_state(n, |state| state.skip.take().is_some())
    }),
    ("order of heads in groups", |n| {
        n.spec
            .recurrence
            .as_mut()
            .is_some_and(|recurrence| match &mut recurrence.kind {
                RecurrenceKind::Delta { tiled } => {
                    *tiled = !*tiled;
                    true
                }
                _ => false,
            })
    }),
    ("order of a memory's steps", |n| {
        let is_memory = |kind| matches!(kind, RecurrenceKind::Delta { .. });
        let is_memory = n.spec.recurrence.is_some_and(|own| is_memory(own.kind));
        is_memory
            && each_state(n, |state| {
                state.paired = !state.paired;
                true
            })
    }),
    ("factor of logits", |n| set(&mut n.spec.logit_scale, 1.0)),
    ("bound of logits", |n| set(&mut n.spec.logit_softcap, 0.0)),
];

#[test]
fn a_golden_fails_without_what_it_shows() {
    let mut unseen = vec![true; SWITCHES.len()];
    let mut faults = Vec::new();
    for folder in own_cases() {
        let (case, name) = (Case::read(&folder), folder.file_name().expect("a folder"));
        let name = name.to_string_lossy();
        let mut shown = Vec::new();
        for (i, (what, switch)) in SWITCHES.iter().enumerate() {
            let Some(difference) = without(&folder, &case, *switch) else {
                continue;
            };
            unseen[i] = false;
            shown.push(format!("{what} {difference:.1e}"));
            if !is_off(difference) {
                faults.push(format!("{name} does not show: {what}, {difference:.1e}"));
            }
        }
        println!("{name}: {}", shown.join(", "));
    }
    let nowhere = SWITCHES.iter().zip(unseen).filter(|(_, unseen)| *unseen);
    faults.extend(nowhere.map(|((what, _), _)| format!("no golden has: {what}")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The difference from the golden with something switched off; `None` if it was not on.
fn without(folder: &Path, case: &Case, switch: Switch) -> Option<f32> {
    let mut worst = 0f32;
    for i in 0..case.tokens.len() {
        let mut was_on = false;
        let path = folder.join("model.gguf");
        let mut change = |network: &mut Network| was_on = switch(network);
        let source = Source::Path(&path);
        let mut timeline = Timeline::open_changed(source, 1, kernel::detect(), &mut change);
        if !was_on {
            return None;
        }
        let (made, expected) = case.try_pair(i, &mut timeline);
        worst = worst.max(made.map_or(f32::INFINITY, |made| largest(&made, &expected)));
    }
    Some(worst)
}

/// Whether it was something else before.
fn set<T: PartialEq>(place: &mut T, value: T) -> bool {
    std::mem::replace(place, value) != *place
}

fn turns(network: &Network) -> bool {
    network.spec.each.iter().any(|layer| layer.rope.is_some())
}

fn each_layer(network: &mut Network, change: impl Fn(&mut Layer) -> bool) -> bool {
    let layers = network.weights.layers.iter_mut();
    layers.fold(false, |on, layer| change(layer) | on)
}

fn each_experts(network: &mut Network, change: impl Fn(&mut ExpertWeights) -> bool) -> bool {
    each_layer(network, |layer| layer.experts.as_mut().is_some_and(&change))
}

fn each_recurrent(network: &mut Network, change: impl Fn(&mut RecurrentWeights) -> bool) -> bool {
    each_layer(network, |layer| {
        layer.recurrent.as_mut().is_some_and(&change)
    })
}

fn each_state(network: &mut Network, change: impl Fn(&mut StateWeights) -> bool) -> bool {
    each_recurrent(network, |layer| layer.state.as_mut().is_some_and(&change))
}

/// All norms of rows.
fn norms(network: &mut Network) -> Vec<&mut Norm> {
    let weights = &mut network.weights;
    let layers = weights.layers.iter_mut().flat_map(|layer| {
        let places = [
            &mut layer.attention_norm,
            &mut layer.attention_post_norm,
            &mut layer.ffn_norm,
            &mut layer.ffn_post_norm,
            &mut layer.attention_sum_norm,
            &mut layer.attention_second_norm,
            &mut layer.ffn_sum_norm,
        ];
        places.into_iter().flatten()
    });
    let others = weights.embedding_norm.iter_mut();
    others
        .chain(layers)
        .chain(&mut weights.output_norm)
        .collect()
}

fn change_ropes(network: &mut Network, change: impl Fn(&mut Rope) -> bool) -> bool {
    let was_on = network
        .spec
        .ropes
        .iter_mut()
        .fold(false, |on, rope| change(rope) | on);
    if was_on {
        network.weights.frequencies = frequencies(&network.spec.ropes);
    }
    was_on
}

fn frequencies(ropes: &[Rope]) -> Vec<Frequencies> {
    ropes
        .iter()
        .map(|rope| Frequencies::new(rope, Factors::default()))
        .collect()
}

/// The angles of a long sequence.
fn angles(frequencies: &Frequencies) -> Vec<[f32; 2]> {
    let mut turns = vec![[0.0; 2]; frequencies.pairs()];
    frequencies.turns(7, usize::MAX, &mut turns);
    turns
}
