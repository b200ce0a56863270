// What avx512.cpp uses of AVX-512, one number at a time, after Intel's descriptions: so that its kernels can be tested on
// machines without. Included before anything else; the file is then compiled for AVX2. By hand, because SIMDe (0.8.2, on
// PyPI as simde-py) has none of the instructions that matter most here, those that expand values by a mask.
#pragma once
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace emulated {

struct Wide {
  alignas(64) uint8_t bytes[64];
};
template <class Number>
struct View {
  static constexpr int kCount = 64 / int(sizeof(Number));
  Number numbers[kCount];
  explicit View(const Wide& from) { std::memcpy(numbers, from.bytes, 64); }
  View() : numbers{} {}
  Wide wide() const {
    Wide out;
    std::memcpy(out.bytes, numbers, 64);
    return out;
  }
};
template <class Number, class Function>
Wide each(Function function) {
  View<Number> out;
  for (int lane = 0; lane < View<Number>::kCount; ++lane) out.numbers[lane] = function(lane);
  return out.wide();
}
template <class Part>
Wide part_in(Wide wide, const Part& part, int place) {
  std::memcpy(wide.bytes + place * int(sizeof part), &part, sizeof part);
  return wide;
}
template <class Part>
Part part_of(const Wide& wide, int place) {
  Part part;
  std::memcpy(&part, wide.bytes + place * int(sizeof part), sizeof part);
  return part;
}
template <class Part>
Wide repeated(const Part& part) {
  Wide out{};
  for (int place = 0; place < 64 / int(sizeof part); ++place) out = part_in(out, part, place);
  return out;
}
// The lowest elements of `from`, spread to where the mask has bits; zeros elsewhere.
template <class Number, class Register>
Register expanded(uint32_t mask, const Register& from) {
  Number in[sizeof from / sizeof(Number)], out[sizeof from / sizeof(Number)] = {};
  std::memcpy(in, &from, sizeof from);
  size_t next = 0;
  for (size_t lane = 0; lane < sizeof from / sizeof(Number); ++lane)
    if (mask >> lane & 1) out[lane] = in[next++];
  Register result;
  std::memcpy(&result, out, sizeof result);
  return result;
}

using F = View<float>;
using B = View<int8_t>;
using W = View<uint16_t>;
using D = View<int32_t>;

inline Wide same(Wide a) { return a; }
inline Wide zero() { return Wide{}; }
inline Wide add_ps(Wide a, Wide b) { return each<float>([&](int l) { return F(a).numbers[l] + F(b).numbers[l]; }); }
inline Wide fmadd_ps(Wide a, Wide b, Wide c) {
  const F x(a), y(b), z(c);
  return each<float>([&](int l) { return std::fma(x.numbers[l], y.numbers[l], z.numbers[l]); });
}
inline Wide blend_ps(uint16_t mask, Wide a, Wide b) {
  const F x(a), y(b);
  return each<float>([&](int l) { return mask >> l & 1 ? y.numbers[l] : x.numbers[l]; });
}
inline Wide and_(Wide a, Wide b) { return each<uint8_t>([&](int l) { return uint8_t(a.bytes[l] & b.bytes[l]); }); }
inline Wide or_(Wide a, Wide b) { return each<uint8_t>([&](int l) { return uint8_t(a.bytes[l] | b.bytes[l]); }); }
inline Wide sub_epi8(Wide a, Wide b) { return each<uint8_t>([&](int l) { return uint8_t(a.bytes[l] - b.bytes[l]); }); }
inline Wide abs_epi8(Wide a) {
  return each<uint8_t>([&](int l) { return uint8_t(int8_t(a.bytes[l]) < 0 ? -int8_t(a.bytes[l]) : a.bytes[l]); });
}
inline uint64_t movepi8_mask(Wide a) {
  uint64_t mask = 0;
  for (int lane = 0; lane < 64; ++lane) mask |= uint64_t(a.bytes[lane] >> 7) << lane;
  return mask;
}
inline Wide mask_sub_epi8(Wide source, uint64_t mask, Wide a, Wide b) {
  return each<uint8_t>([&](int l) { return mask >> l & 1 ? uint8_t(a.bytes[l] - b.bytes[l]) : source.bytes[l]; });
}
inline Wide shuffle_epi8(Wide a, Wide b) {
  return each<uint8_t>([&](int l) { return b.bytes[l] & 0x80 ? uint8_t(0) : a.bytes[l / 16 * 16 + (b.bytes[l] & 15)]; });
}
inline Wide shuffle_i64x2(Wide a, Wide b, int control) {
  Wide out{};
  for (int place = 0; place < 4; ++place)
    out = part_in(out, part_of<__m128i>(place < 2 ? a : b, control >> (2 * place) & 3), place);
  return out;
}
inline Wide srlv_epi16(Wide a, Wide by) {
  const W x(a), y(by);
  return each<uint16_t>([&](int l) { return uint16_t(y.numbers[l] < 16 ? x.numbers[l] >> y.numbers[l] : 0); });
}
inline Wide dpbusd(Wide sum, Wide a, Wide b) {
  const D start(sum);
  const B signed_ones(b);
  return each<int32_t>([&](int l) {
    int32_t total = start.numbers[l];
    for (int byte = 4 * l; byte < 4 * l + 4; ++byte) total += int32_t(a.bytes[byte]) * signed_ones.numbers[byte];
    return total;
  });
}
inline Wide cvtepi32_ps(Wide a) { return each<float>([&](int l) { return float(D(a).numbers[l]); }); }
inline Wide cvtepi8_epi32(__m128i a) {
  int8_t in[16];
  std::memcpy(in, &a, 16);
  return each<int32_t>([&](int l) { return int32_t(in[l]); });
}
inline Wide cvtph_ps(__m256i a) {
  Wide out{};
  out = part_in(out, _mm256_cvtph_ps(_mm256_castsi256_si128(a)), 0);
  return part_in(out, _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1)), 1);
}
inline Wide load(const void* at) {
  Wide out;
  std::memcpy(out.bytes, at, 64);
  return out;
}
inline void store(void* at, Wide value) { std::memcpy(at, value.bytes, 64); }

}  // namespace emulated

#define __m512 emulated::Wide
#define __m512d emulated::Wide
#define __m512i emulated::Wide
#undef _mm512_extractf64x4_pd
#undef _mm512_inserti32x4
#undef _mm512_inserti64x4
#undef _mm512_shuffle_i64x2
#define _mm512_abs_epi8 emulated::abs_epi8
#define _mm512_add_ps emulated::add_ps
#define _mm512_and_si512 emulated::and_
#define _mm512_broadcast_f64x4(a) emulated::repeated<__m256d>(a)
#define _mm512_broadcast_i64x4(a) emulated::repeated<__m256i>(a)
#define _mm512_castpd_ps emulated::same
#define _mm512_castps_pd emulated::same
#define _mm512_castps_si512 emulated::same
#define _mm512_castsi512_ps emulated::same
#define _mm512_castps512_ps256(a) emulated::part_of<__m256>(a, 0)
#define _mm512_castsi128_si512(a) emulated::part_in<__m128i>(emulated::zero(), a, 0)
#define _mm512_castsi256_si512(a) emulated::part_in<__m256i>(emulated::zero(), a, 0)
#define _mm512_cvtepi32_ps emulated::cvtepi32_ps
#define _mm512_cvtepi8_epi32 emulated::cvtepi8_epi32
#define _mm512_cvtph_ps emulated::cvtph_ps
#define _mm512_dpbusd_epi32 emulated::dpbusd
#define _mm512_extractf64x4_pd(a, place) emulated::part_of<__m256d>(a, place)
#define _mm512_fmadd_ps emulated::fmadd_ps
#define _mm512_inserti32x4(a, b, place) emulated::part_in<__m128i>(a, b, place)
#define _mm512_inserti64x4(a, b, place) emulated::part_in<__m256i>(a, b, place)
#define _mm512_loadu_ps emulated::load
#define _mm512_loadu_si512 emulated::load
#define _mm512_mask_blend_ps emulated::blend_ps
#define _mm512_mask_sub_epi8 emulated::mask_sub_epi8
#define _mm512_maskz_expand_ps(mask, a) emulated::expanded<float>(mask, a)
#define _mm512_movepi8_mask emulated::movepi8_mask
#define _mm512_or_si512 emulated::or_
#define _mm512_set1_epi16(a) emulated::repeated<int16_t>(a)
#define _mm512_set1_epi64(a) emulated::repeated<int64_t>(a)
#define _mm512_set1_epi8(a) emulated::repeated<int8_t>(a)
#define _mm512_set1_ps(a) emulated::repeated<float>(a)
#define _mm512_setzero_ps emulated::zero
#define _mm512_setzero_si512 emulated::zero
#define _mm512_shuffle_epi8 emulated::shuffle_epi8
#define _mm512_shuffle_i64x2 emulated::shuffle_i64x2
#define _mm512_srlv_epi16 emulated::srlv_epi16
#define _mm512_storeu_ps emulated::store
#define _mm512_sub_epi8 emulated::sub_epi8
#define _mm256_maskz_expand_epi16(mask, a) emulated::expanded<uint16_t>(mask, a)
#define _mm_maskz_expand_epi8(mask, a) emulated::expanded<uint8_t>(mask, a)
