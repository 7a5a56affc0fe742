//! Unpacking with AVX-512, to the same bits as the plain code: a table in a register holds what each
//! number of four bits stands for in a block, and one instruction looks up sixteen of them.

use std::arch::x86_64::*;

use super::BlockFormat;
use super::k_blocks::scales_and_minima;
use super::normal_float::QUANTILES;

/// Writes the numbers of whole blocks; whether it can.
///
/// # Safety
/// The machine has AVX-512 F, BW, DQ and VL, and so F16C.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
pub(super) fn unpack(format: BlockFormat, blocks: &[u8], values: &mut [f32]) -> bool {
    macro_rules! each {
        ($of_block:ident) => {{
            let (blocks, values) = (blocks.as_chunks().0, values.as_chunks_mut().0);
            // Indices, not iterators, here and below: whatever is not inlined costs more than it
            // does.
            for number in 0..blocks.len().min(values.len()) {
                ahead(blocks[number].as_ptr());
                $of_block(&blocks[number], &mut values[number]);
            }
            true
        }};
    }
    match format {
        BlockFormat::Q8_0 => each!(q8_0),
        BlockFormat::Q4_0 => each!(q4_0),
        BlockFormat::Q4_1 => each!(q4_1),
        BlockFormat::Q5_0 => each!(q5_0),
        BlockFormat::Q5_1 => each!(q5_1),
        BlockFormat::Q4_K => each!(q4_k),
        BlockFormat::Q5_K => each!(q5_k),
        BlockFormat::Q6_K => each!(q6_k),
        BlockFormat::NF4 => each!(nf4),
        BlockFormat::F32 | BlockFormat::F16 | BlockFormat::BF16 => false,
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = all(half(block, 0));
    for from in [0, 16] {
        let numbers = _mm512_cvtepi8_epi32(load(part(&block[2 + from..])));
        store(_mm512_mul_ps(_mm512_cvtepi32_ps(numbers), d), to(&mut out[from..]));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let table = _mm512_mul_ps(all(half(block, 0)), _mm512_sub_ps(counted(), all(8.0)));
    nibbles(part(&block[2..]), [table; 2], out.split_at_mut(16));
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let table = line(half(block, 0), half(block, 2), counted());
    nibbles(part(&block[4..]), [table; 2], out.split_at_mut(16));
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = all(half(block, 0));
    let low = _mm512_mul_ps(d, _mm512_sub_ps(counted(), all(16.0)));
    let high = _mm512_mul_ps(d, counted());
    five_bits(&block[2..], [low, high], out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    let upper = _mm512_add_ps(counted(), all(16.0));
    five_bits(&block[4..], [line(d, m, counted()), line(d, m, upper)], out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let scales = scales_and_minima(block);
    for pair in 0..4 {
        let bytes = &block[16 + 32 * pair..];
        let [low, high] = [scales[2 * pair], scales[2 * pair + 1]];
        let tables = [line(low.0, -low.1, counted()), line(high.0, -high.1, counted())];
        let (low, high) = out[64 * pair..64 * (pair + 1)].split_at_mut(32);
        for from in [0, 16] {
            nibbles(part(&bytes[from..]), tables, (&mut low[from..], &mut high[from..]));
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let scales = scales_and_minima(block);
    let upper = _mm512_add_ps(counted(), all(16.0));
    for group in 0..8 {
        let (scale, minimum) = scales[group];
        let out = &mut out[32 * group..32 * (group + 1)];
        let [low, high] = [line(scale, -minimum, counted()), line(scale, -minimum, upper)];
        let bytes = &block[48 + 32 * (group / 2)..];
        let fifth = _mm_set1_epi8(1_i8.rotate_left(group as u32));
        for from in [0, 16] {
            let mut numbers = _mm512_cvtepu8_epi32(load(part(&bytes[from..])));
            if group % 2 == 1 {
                numbers = _mm512_srli_epi32::<4>(numbers);
            }
            let has_fifth = _mm_test_epi8_mask(load(part(&block[16 + from..])), fifth);
            store(chosen(numbers, has_fifth, [low, high]), to(&mut out[from..]));
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half(block, 208);
    for number in 0..16 {
        // Two parts of 128 numbers, in four groups of 32, in two halves.
        let (of_part, group, from) = (number / 8, number / 2 % 4, number % 2 * 16);
        let low = &block[64 * of_part + 32 * (group % 2) + from..];
        let low = _mm512_cvtepu8_epi32(load(part(low)));
        let low = if group < 2 { low } else { _mm512_srli_epi32::<4>(low) };
        let low = _mm512_and_si512(low, _mm512_set1_epi32(15));
        let high = _mm512_cvtepu8_epi32(load(part(&block[128 + 32 * of_part + from..])));
        let high = _mm512_srl_epi32(high, _mm_cvtsi32_si128(2 * group as i32));
        let high = _mm512_slli_epi32::<4>(_mm512_and_si512(high, _mm512_set1_epi32(3)));
        let numbers = _mm512_sub_epi32(_mm512_or_si512(low, high), _mm512_set1_epi32(32));
        let scale = d * f32::from(block[192 + number] as i8);
        store(_mm512_mul_ps(all(scale), _mm512_cvtepi32_ps(numbers)), to(&mut out[16 * number..]));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
fn nf4(block: &[u8; 36], out: &mut [f32; 64]) {
    let absmax = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
    let table = _mm512_mul_ps(load_numbers(&QUANTILES), all(absmax));
    for part in 0..4 {
        let bytes = block[4 + 8 * part..].first_chunk().expect("8 bytes");
        // The upper half of a byte is the first of its two numbers; higher bits are not looked at.
        let bytes = _mm512_cvtepu8_epi64(_mm_cvtsi64_si128(i64::from_le_bytes(*bytes)));
        let numbers =
            _mm512_or_si512(_mm512_slli_epi64::<32>(bytes), _mm512_srli_epi64::<4>(bytes));
        store(_mm512_permutexvar_ps(numbers, table), to(&mut out[16 * part..]));
    }
}

/// Asks for what comes some blocks later, so that it is there by then.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
#[inline]
fn ahead(block: *const u8) {
    /// Far enough for the memory, near enough for the first cache.
    const BYTES: usize = 4096;
    _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(BYTES).cast());
}

/// What the lower halves of bytes stand for, and the upper ones.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
#[inline]
fn nibbles(bytes: &[u8; 16], tables: [__m512; 2], (low, high): (&mut [f32], &mut [f32])) {
    let bytes = _mm512_cvtepu8_epi32(load(bytes));
    // Higher bits are not looked at.
    store(_mm512_permutexvar_ps(bytes, tables[0]), to(low));
    store(_mm512_permutexvar_ps(_mm512_srli_epi32::<4>(bytes), tables[1]), to(high));
}

/// Four bytes of fifth bits, then 16 bytes of nibbles; the tables are of numbers without a fifth bit
/// and with it.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
#[inline]
fn five_bits(bytes: &[u8], tables: [__m512; 2], out: &mut [f32; 32]) {
    let fifth =
        [u16::from_le_bytes([bytes[0], bytes[1]]), u16::from_le_bytes([bytes[2], bytes[3]])];
    let numbers = _mm512_cvtepu8_epi32(load(part(&bytes[4..])));
    let (low, high) = out.split_at_mut(16);
    store(chosen(numbers, fifth[0], tables), to(low));
    store(chosen(_mm512_srli_epi32::<4>(numbers), fifth[1], tables), to(high));
}

/// What numbers of four bits stand for, by the first table or, where the mask says so, the second.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
#[inline]
fn chosen(numbers: __m512i, second: __mmask16, [a, b]: [__m512; 2]) -> __m512 {
    _mm512_mask_permutexvar_ps(_mm512_permutexvar_ps(numbers, a), second, numbers, b)
}

/// `d q + m`, each product and sum rounded.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
#[inline]
fn line(d: f32, m: f32, q: __m512) -> __m512 {
    _mm512_add_ps(_mm512_mul_ps(all(d), q), all(m))
}

/// 0 to 15.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
#[inline]
fn counted() -> __m512 {
    const COUNTED: [f32; 16] =
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
    load_numbers(&COUNTED)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
#[inline]
fn all(value: f32) -> __m512 {
    _mm512_set1_ps(value)
}

/// The half at an offset.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
#[inline]
fn half(block: &[u8], at: usize) -> f32 {
    let bits = u16::from_le_bytes([block[at], block[at + 1]]);
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))))
}

/// The first 16 bytes.
#[inline(always)]
fn part(bytes: &[u8]) -> &[u8; 16] {
    bytes.first_chunk().expect("16 bytes")
}

/// Room for 16 numbers at the start of a slice.
#[inline(always)]
fn to(out: &mut [f32]) -> &mut [f32; 16] {
    out.first_chunk_mut().expect("room for 16 numbers")
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
#[inline]
fn load(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: as many bytes as a register holds, at any address.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
#[inline]
fn load_numbers(numbers: &[f32; 16]) -> __m512 {
    // SAFETY: as many numbers as a register holds, at any address.
    unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
#[inline]
fn store(numbers: __m512, out: &mut [f32; 16]) {
    // SAFETY: room for as many numbers as a register holds, at any address.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), numbers) }
}
