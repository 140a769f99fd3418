//! Makes the instances of the shared bodies for one ISA: functions compiled with its features, and
//! the table that names them.

/// Defines `pub static KERNELS` in the calling module. With vectors, `instance!(Isa, MulAdd, Vectors,
/// panels [P, T], floats [U, R, T], attention [N], "features")`, products, quantizing (the function of
/// the module above) and attention are those of the vectors, with tiles of these sizes; else all
/// are the shared bodies.
macro_rules! instance {
    ($isa:expr, $mul_add:ty $(, $features:literal)?) => {
        $crate::kernel::instance::instance!($isa, $mul_add,
            |weights, x, (groups, _), out| {
                lanes::matmul_blocks::<B, $mul_add>(weights, x, groups, out)
            },
            |weights, x, (stride, columns, _), out| {
                lanes::matmul_floats::<F, $mul_add>(weights, x, (stride, columns), out)
            },
            |x, out| quant::quantize_row(x, out),
            |work, _room, out| lanes::attend::<$mul_add>(work, out)
            $(, $features)?);
    };
    ($isa:expr, $mul_add:ty, $vectors:ty, panels [$p:literal, $t:literal],
        floats [$u:literal, $r:literal, $s:literal], attention [$n:literal], $features:literal) => {
        /// The proof of the features, for the functions below.
        #[target_feature(enable = $features)]
        #[inline]
        fn vectors() -> $vectors {
            // SAFETY: this function is compiled with the features.
            unsafe { <$vectors>::new() }
        }

        $crate::kernel::instance::instance!($isa, $mul_add,
            |weights, x, sizes, out| {
                $crate::kernel::panel::matmul::<_, B, $p, $t>(vectors(), weights, x, sizes, out)
            },
            |weights, x, sizes, out| {
                $crate::kernel::dense::matmul::<_, F, $u, $r, $s>(vectors(), weights, x, sizes, out)
            },
            |x, out| super::quantize_row(vectors(), x, out),
            |work, room, out| {
                $crate::kernel::attention::attend::<_, $n>(vectors(), work, room, out)
            },
            $features);
    };
    ($isa:expr, $mul_add:ty,
        |$weights:ident, $x:ident, $groups:pat, $out:ident| $blocks:expr,
        |$rows:ident, $floats:ident, $sizes:pat, $tile:ident| $dense:expr,
        |$row:ident, $quants:ident| $quantize:expr,
        |$work:ident, $room:ident, $result:ident| $attend:expr
        $(, $features:literal)?) => {
        use crate::kernel::logits::{self, LogitFunctions, Reach, Steps};
        use crate::kernel::recurrence::{self, Lane, RecurrenceFunctions};
        use crate::kernel::selection::{self, Keys, Ranked};
        use crate::kernel::dense::Widen;
        use crate::kernel::panel::Unpack;
        use crate::kernel::{
            Attention, Functions, Input, Isa, Kernels, Nonlinearity, Room, elementwise, lanes,
        };
        use crate::quant::{self, Activation, Format, with_format};
        use crate::team::Tile;

        pub static KERNELS: Kernels = Kernels {
            isa: $isa,
            functions: Functions {
                matmul,
                quantize_row,
                rms_norm,
                layer_norm,
                add,
                add_scaled,
                multiply,
                scale,
                clamp,
                softcap,
                activate,
                swiglu,
                swiglu_clamped,
                rope_interleaved,
                rope_halves,
                attend,
                join_spans,
                recurrence: RecurrenceFunctions {
                    multiply_add,
                    gate,
                    state_step,
                    selective_step,
                    delta_step,
                },
                logits: LogitFunctions {
                    block_maxima,
                    sums,
                    exp_weights,
                    weighted_depth,
                    moments,
                    nearness,
                    count_from,
                    mask,
                    exclude,
                    divide,
                    masses_from,
                    group_maxima,
                    collect,
                    floor,
                },
            },
        };

        $(#[target_feature(enable = $features)])?
        fn matmul(
            format: Format,
            weights: &[u8],
            x: &Input<'_>,
            next: &[u8],
            out: &mut Tile<'_, f32>,
        ) {
            let first = out.row_range().start;
            with_format!(format,
                B => {
                    let groups = x.columns / quant::GROUP;
                    let quants = &x.quants[first * groups..];
                    matmul_blocks::<B>(weights, quants, (groups, next), out)
                },
                F => {
                    let floats = &x.floats[first * x.stride..];
                    let sizes = (x.stride, x.columns, next);
                    matmul_floats::<F>(weights, floats, sizes, out)
                },
                _ => unreachable!("a matrix has a computable format"))
        }

        // One function a format, lest all their locals share a frame.
        $(#[target_feature(enable = $features)])?
        #[inline(never)]
        fn matmul_blocks<B: Unpack>(
            $weights: &[u8],
            $x: &[Activation],
            $groups: (usize, &[u8]),
            $out: &mut Tile<'_, f32>,
        ) {
            $blocks
        }

        $(#[target_feature(enable = $features)])?
        #[inline(never)]
        fn matmul_floats<F: Widen>(
            $rows: &[u8],
            $floats: &[f32],
            $sizes: (usize, usize, &[u8]),
            $tile: &mut Tile<'_, f32>,
        ) {
            $dense
        }

        $(#[target_feature(enable = $features)])?
        fn quantize_row($row: &[f32], $quants: &mut [Activation]) -> bool {
            $quantize
        }

        $(#[target_feature(enable = $features)])?
        fn attend($work: &Attention<'_>, $room: &mut Room, $result: &mut Tile<'_, f32>) {
            $attend
        }

        $crate::kernel::instance::instance!(@ $($features)?; $mul_add;
            rms_norm(x: &mut [f32], weight: &[f32], epsilon: f32) -> bool
                { elementwise::rms_norm::<$mul_add> };
            layer_norm(x: &mut [f32], weight: &[f32], epsilon: f32) -> bool
                { elementwise::layer_norm::<$mul_add> };
            add(out: &mut [f32], x: &[f32]) { elementwise::add };
            add_scaled(out: &mut [f32], factor: f32, x: &[f32])
                { elementwise::add_scaled::<$mul_add> };
            multiply(out: &mut [f32], x: &[f32]) { elementwise::multiply };
            scale(x: &mut [f32], factor: f32) { elementwise::scale };
            clamp(x: &mut [f32], limit: f32) { elementwise::clamp };
            softcap(x: &mut [f32], cap: f32) { elementwise::softcap };
            activate(function: Nonlinearity, x: &mut [f32]) { elementwise::activate };
            swiglu(gate: &mut [f32], up: &[f32]) { elementwise::swiglu };
            swiglu_clamped(gate: &mut [f32], up: &[f32], alpha: f32, limit: f32)
                { elementwise::swiglu_clamped };
            rope_interleaved(head: &mut [f32], turns: &[[f32; 2]])
                { elementwise::rope_interleaved };
            rope_halves(head: &mut [f32], turns: &[[f32; 2]]) { elementwise::rope_halves };
            join_spans(spans: &[f32], place: (usize, usize), sink: f32, out: &mut [f32])
                { lanes::join_spans::<$mul_add> };
            multiply_add(out: &mut [f32], x: &[f32], y: &[f32])
                { elementwise::multiply_add::<$mul_add> };
            gate(out: &mut [f32], gate: &[f32]) { elementwise::gate };
            state_step(state: &mut [Lane], decay: f32, x: &Lane, b_c: [&[f32]; 2]) -> Lane
                { recurrence::state_step::<$mul_add> };
            selective_step(state: &mut [Lane], a: &[Lane], step_x: [&Lane; 2], b_c: [&[f32]; 2])
                -> Lane { recurrence::selective_step::<$mul_add> };
            delta_step(state: &mut [Lane], decay_beta: [f32; 2], value: &Lane,
                key_query: [&[f32]; 2]) -> Lane { recurrence::delta_step::<$mul_add> };
            block_maxima(x: &[f32], maxima: &mut [f32]) -> bool { logits::block_maxima };
            sums(x: &[f32], sums: &mut [f32]) -> f64 { logits::sums };
            exp_weights(x: &[f32], max: f32, weights: &mut [f32], sums: &mut [f32]) -> f64
                { logits::exp_weights };
            weighted_depth(x: &[f32], weights: &[f32], max: f32) -> f64
                { logits::weighted_depth };
            moments(x: &[f32], centre: f32) -> [f64; 3] { logits::moments };
            nearness(x: &[f32], centre: f32, out: &mut [f32]) { selection::nearness };
            count_from(x: &[f32], threshold: f32) -> usize { logits::count_from };
            mask(keys: Keys<'_>, threshold: f32, fill: f32, values: &mut [f32]) { selection::mask };
            exclude(keys: Keys<'_>, range: [f32; 2], weights_sums: (&mut [f32], &mut [f32]),
                found: &mut [Ranked]) -> usize { selection::exclude };
            divide(x: &mut [f32], divisor: f32) { logits::divide };
            masses_from(keys: Keys<'_>, weights: &[f32], thresholds: &Steps<f32>) -> Steps<f64>
                { selection::masses_from };
            group_maxima(x: &[f32], rows: usize, maxima: &mut [f32]) { selection::group_maxima };
            collect(keys: Keys<'_>, range: [f32; 2], reach: Reach<'_>, found: &mut [Ranked])
                -> usize { selection::collect };
            floor(x: &mut [f32], threshold: f32) { logits::floor };
        );
    };
    (@ $($features:literal)?; $mul_add:ty;) => {};
    (@ $features:literal; $mul_add:ty;
        $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? { $body:expr }; $($rest:tt)*) => {
        #[target_feature(enable = $features)]
        fn $name($($arg: $type),*) $(-> $result)? { $body($($arg),*) }
        $crate::kernel::instance::instance!(@ $features; $mul_add; $($rest)*);
    };
    (@ ; $mul_add:ty;
        $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? { $body:expr }; $($rest:tt)*) => {
        fn $name($($arg: $type),*) $(-> $result)? { $body($($arg),*) }
        $crate::kernel::instance::instance!(@ ; $mul_add; $($rest)*);
    };
}

pub(crate) use instance;
