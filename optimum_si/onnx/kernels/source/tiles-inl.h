// Sparse times many rows of x, which lie side by side: each non-zero is multiplied by a column of a tile of x, so that
// zeros save multiplications here as well.
#pragma once
#include "nonzeros-inl.h"
#include "strips-inl.h"

namespace si::SI_TARGET {
namespace {

constexpr int64_t kTileFloats = 4096;  // of a tile of x that stay in the first cache

// sums += values * the tile's columns, for `kPanels` registers of rows of x.
template <class Target, int kPanels>
void add_row(const Nonzeros& row, const float* tile, float* sums) {
  constexpr int kWidth = kPanels * Target::kLanes;
  constexpr int kChains = kPanels >= 5 ? 1 : kPanels >= 3 ? 2 : 4;  // sums that do not wait for each other
  typename Target::Register all[kChains][kPanels];
  SI_UNROLL
  for (int panel = 0; panel < kPanels; ++panel) {
    all[0][panel] = Target::load(sums + panel * Target::kLanes);
    SI_UNROLL
    for (int chain = 1; chain < kChains; ++chain) all[chain][panel] = Target::zero();
  }
  // Columns are read before their turn, because loads whose address waits for another load fill the queue of Zen 1.
  constexpr int kAhead = kChains > 2 ? kChains : 2;
  const float* next[kAhead];
  SI_UNROLL
  for (int ahead = 0; ahead < kAhead; ++ahead) next[ahead] = tile + size_t(row.columns[ahead]) * kWidth;
  int64_t at = 0;
  for (; at + kAhead <= row.count; at += kAhead)
    SI_UNROLL
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const float* column = next[ahead];
      next[ahead] = tile + size_t(row.columns[at + kAhead + ahead]) * kWidth;
      const auto weight = Target::broadcast(row.values[at + ahead]);
      SI_UNROLL
      for (int panel = 0; panel < kPanels; ++panel) {
        auto& sum = all[ahead % kChains][panel];
        sum = Target::fmadd(weight, Target::load(column + panel * Target::kLanes), sum);
      }
    }
  for (; at < row.count; ++at) {
    const float* column = tile + size_t(row.columns[at]) * kWidth;
    const auto weight = Target::broadcast(row.values[at]);
    SI_UNROLL
    for (int panel = 0; panel < kPanels; ++panel)
      all[0][panel] = Target::fmadd(weight, Target::load(column + panel * Target::kLanes), all[0][panel]);
  }
  SI_UNROLL
  for (int panel = 0; panel < kPanels; ++panel) {
    auto sum = all[0][panel];
    SI_UNROLL
    for (int chain = 1; chain < kChains; ++chain) sum = Target::add(sum, all[chain][panel]);
    Target::store(sums + panel * Target::kLanes, sum);
  }
}

template <class Target>
void add_row(const Nonzeros& row, const float* tile, float* sums, int64_t panels) {
  switch (panels) {
    case 1: return add_row<Target, 1>(row, tile, sums);
    case 2: return add_row<Target, 2>(row, tile, sums);
    case 3: return add_row<Target, 3>(row, tile, sums);
    case 4: return add_row<Target, 4>(row, tile, sums);
    case 5: return add_row<Target, 5>(row, tile, sums);
    case 6: return add_row<Target, 6>(row, tile, sums);
    case 7: return add_row<Target, 7>(row, tile, sums);
    default: return add_row<Target, 8>(row, tile, sums);
  }
}

// One tile of x, ranges of its columns that stay in the cache one after the other.
template <class Target, class Reader>
void add_strips(const Packed& p, int64_t first, int64_t last, const float* tile, int64_t width, float* sums) {
  constexpr int64_t kHeight = Reader::kHeight;
  const int64_t steps = p.padded_columns() / kStep, count = (last - first + kHeight - 1) / kHeight;
  int64_t together = kTileFloats / width / kStep;
  together = together < 1 ? 1 : together > kLongest / kStep ? kLongest / kStep : together;
  Reader strips(p, first / kHeight, count);
  Nonzeros rows[kHeight];
  for (int64_t start = 0; start < steps; start += together) {
    const int64_t stop = start + together < steps ? start + together : steps;
    for (int64_t strip = 0; strip < count; ++strip) {
      for (auto& row : rows) row.count = 0;
      strips.read(strip, start, stop, rows);
      for (int row = 0; row < kHeight; ++row)
        add_row<Target>(rows[row], tile + start * kStep * width, sums + (strip * kHeight + row) * width,
                        width / Target::kLanes);
    }
  }
}

// 4:8 and a narrow tile: each mask's 4 values at once, without lists, for the 4 rows of a strip side by side.
template <class Target, class Value, int kPanels>
void add_narrow_four_of_eight(const Packed& p, int64_t first, int64_t last, const float* tile, float* sums) {
  constexpr int kWidth = kPanels * Target::kLanes;
  constexpr int64_t kTogether = 16;  // steps whose values are decoded before they are used
  const int64_t steps = p.padded_columns() / kStep, shared = shared_steps(p);
  const Scales scales(p);
  for (int64_t strip = first / kMaskStrip; strip * kMaskStrip < last; ++strip) {
    typename Target::Register all[kMaskStrip][kPanels];
    clear<Target>(all);
    for (int64_t start = 0; start < steps; start += kTogether) {
      const int64_t stop = start + kTogether < steps ? start + kTogether : steps;
      alignas(64) float values[kTogether * 16];
      for (int64_t step = start, until; step < stop;) {
        const int64_t group = step / shared;
        until = (group + 1) * shared < stop ? (group + 1) * shared : stop;
        const __m128 four = scales.four(strip, group);
        const __m256 one = _mm256_set_m128(_mm_permute_ps(four, 0x55), _mm_permute_ps(four, 0x00));
        const __m256 other = _mm256_set_m128(_mm_permute_ps(four, 0xff), _mm_permute_ps(four, 0xaa));
        for (; step < until; ++step) {
          const int64_t index = (strip * steps + step) * 16;
          float* out = values + (step - start) * 16;
          _mm256_store_ps(out, Value::scaled(Value::load(p.values.data, index), one));
          _mm256_store_ps(out + 8, Value::scaled(Value::load(p.values.data, index + 8), other));
        }
      }
      const uint8_t* codes = p.indices.data + (strip * steps + start) * kMaskStrip;
      const float *columns = tile + start * kStep * kWidth, *next = values;
      for (int64_t step = start; step < stop; ++step, columns += kStep * kWidth)
        SI_UNROLL
        for (int row = 0; row < kMaskStrip; ++row) {
          uint32_t places;
          std::memcpy(&places, kShuffles.four_columns[0] + 2 * size_t(*codes++), 4);
          SI_UNROLL
          for (int value = 0; value < 4; ++value) {
            const float* column = columns + size_t(places >> 8 * value & 0xff) / 4 * kWidth;
            const auto weight = Target::broadcast(*next++);
            SI_UNROLL
            for (int panel = 0; panel < kPanels; ++panel)
              all[row][panel] = Target::fmadd(weight, Target::load(column + panel * Target::kLanes), all[row][panel]);
          }
        }
    }
    SI_UNROLL
    for (int row = 0; row < kMaskStrip; ++row)
      SI_UNROLL
      for (int panel = 0; panel < kPanels; ++panel)
        Target::store(sums + (strip * kMaskStrip - first + row) * kWidth + panel * Target::kLanes, all[row][panel]);
  }
}

template <class Target, class Value>
void add_csr(const Packed& p, int64_t first, int64_t last, const float* tile, int64_t width, float* sums) {
  const Scales scales(p);
  const bool grouped = p.has_groups();
  const AlignedBuffer<float> units(p.columns / kUnit + 1);  // scales, whatever the group
  Nonzeros kept;
  for (int64_t row = first; row < last; ++row) {
    const int64_t stop = start_at(p, row + 1);
    const __m256 scale = _mm256_set1_ps(grouped ? 1.0f : scales.one(row, 0));
    if (grouped)
      for (int64_t unit = 0, group = 0, left = p.group; unit * kUnit < p.columns; ++unit, left -= kUnit) {
        if (!left) ++group, left = p.group;
        units.get()[unit] = scales.one(row, group);
      }
    for (int64_t at = start_at(p, row); at < stop; at += kLongest) {
      kept.count = stop - at < kLongest ? stop - at : kLongest;
      std::memcpy(kept.columns, p.indices.data + 2 * at, size_t(2 * kept.count));
      for (int64_t index = 0; index < kept.count; index += 8)
        _mm256_store_ps(kept.values + index, _mm256_mul_ps(Value::load(p.values.data, at + index), scale));
      if (grouped)
        for (int64_t index = 0; index < kept.count; ++index)
          kept.values[index] *= units.get()[kept.columns[index] / kUnit];
      add_row<Target>(kept, tile, sums + (row - first) * width, width / Target::kLanes);
    }
  }
}

template <class Target, class Value>
void add_tile(const Packed& p, int64_t first, int64_t last, const float* tile, int64_t width, float* sums) {
  if (p.format == Format::kCsr) return add_csr<Target, Value>(p, first, last, tile, width, sums);
  if (p.format == Format::kTwoOfFour) return add_strips<Target, PairReader<Value>>(p, first, last, tile, width, sums);
  if (p.format == Format::kFourOfEight) switch (width / Target::kLanes) {
    case 1: return add_narrow_four_of_eight<Target, Value, 1>(p, first, last, tile, sums);
    case 2: return add_narrow_four_of_eight<Target, Value, 2>(p, first, last, tile, sums);
    case 3: return add_narrow_four_of_eight<Target, Value, 3>(p, first, last, tile, sums);
    default: break;
  }
  add_strips<Target, MaskReader<Value>>(p, first, last, tile, width, sums);
}

template <class Target, class Value>
void multiply_tiles_of(const Task& task, int64_t first, int64_t last) {
  const TransposedTiles& tiles = task.transposed;
  const int64_t columns = task.packed->padded_columns(), rows = last - first, lanes = tiles.lanes;
  const AlignedBuffer<float> sums(rows * tiles.rows);
  for (int64_t m = 0; m < task.count; m += tiles.rows) {
    const int64_t left = task.count - m;
    const int64_t width = left < tiles.rows ? (left + lanes - 1) / lanes * lanes : tiles.rows;
    std::memset(sums.get(), 0, size_t(rows * width) * sizeof(float));
    add_tile<Target, Value>(*task.packed, first, last, tiles.data + m * columns, width, sums.get());
    for (int64_t at = 0; at < width && at < left; ++at)
      for (int64_t row = 0; row < rows; ++row) store(task, m + at, first + row, sums.get()[row * width + at]);
  }
}

template <class Target>
void multiply_tiles(const Task& task, int64_t first, int64_t last) {
  with_dtype(task.packed->dtype, [&](auto value) { multiply_tiles_of<Target, decltype(value)>(task, first, last); });
}

}  // namespace
}  // namespace si::SI_TARGET
