// Kernels for CUDA devices, compiled by NVRTC when a process first needs them.
//
// Each is given one structure, which its user in Rust has a twin of, and runs in blocks of THREADS threads. Nothing adds up in the order
// in which threads finish. All of it is C as well, so that tests can run it on a processor: see emulator.c.

// Images lie in one of two orders: (n, channels, pixels), or (n, pixels, channels), for which kernels end in `_by_pixel`. `count` are the
// n * pixels values of a channel. In the order of pixels a block has `lanes` threads side by side, a power of 2, each with four channels.

__device__ int min_of(int a, int b) { return a < b ? a : b; }

// Where the value of a channel lies.
__device__ int place(int value, int channel, int channels, int pixels) {
    return (value / pixels * channels + channel) * pixels + value % pixels;
}

// The sum over the threads of a block, which all of them get.
__device__ double block_sum(double value) {
    __shared__ double sums[THREADS];
    sums[threadIdx.x] = value;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    double sum = sums[0];
    __syncthreads();
    return sum;
}

// Eight sums over the threads of a block whose numbers are equal modulo `lanes`, which all of them get.
__device__ void lane_sums(double *values, int lanes) {
    __shared__ double sums[8][THREADS];
    for (int k = 0; k < 8; ++k) sums[k][threadIdx.x] = values[k];
    __syncthreads();
    for (int half = THREADS / 2; half >= lanes; half /= 2) {
        if (threadIdx.x < half) {
            for (int k = 0; k < 8; ++k) sums[k][threadIdx.x] += sums[k][threadIdx.x + half];
        }
        __syncthreads();
    }
    for (int k = 0; k < 8; ++k) values[k] = sums[k][threadIdx.x % lanes];
    __syncthreads();
}

union Bits {
    float value;
    unsigned bits;
};

// The nearest bf16, of two the even one: the upper half of an f32.
__device__ unsigned short narrowed(float value) {
    union Bits x;
    x.value = value;
    // Carries would make an infinity, or a number, of some NaN.
    unsigned upper = value != value ? x.bits | 0x00400000u : x.bits + 0x7fffu + (x.bits >> 16 & 1u);
    return upper >> 16;
}

__device__ float widened(unsigned short value) {
    union Bits x;
    x.bits = (unsigned)value << 16;
    return x.value;
}

__device__ float value_of(const void *x, int is_narrow, int at) {
    return is_narrow ? widened(((const unsigned short *)x)[at]) : ((const float *)x)[at];
}

__device__ void put_value(void *y, int is_narrow, int at, float value) {
    if (is_narrow) {
        ((unsigned short *)y)[at] = narrowed(value);
    } else {
        ((float *)y)[at] = value;
    }
}

// Four channels of a pixel, zeros for those that are not there.
__device__ float4 four(const float *pixel, int channel, int channels) {
    float4 x = {0, 0, 0, 0};
    if (channels % 4 == 0) {
        if (channel < channels) x = *(const float4 *)(pixel + channel);
        return x;
    }
    if (channel < channels) x.x = pixel[channel];
    if (channel + 1 < channels) x.y = pixel[channel + 1];
    if (channel + 2 < channels) x.z = pixel[channel + 2];
    if (channel + 3 < channels) x.w = pixel[channel + 3];
    return x;
}

__device__ float4 four_narrow(const unsigned short *pixel, int channel, int channels) {
    float4 x = {0, 0, 0, 0};
    if (channels % 4 == 0) {
        if (channel >= channels) return x;
        ushort4 narrow = *(const ushort4 *)(pixel + channel);
        x.x = widened(narrow.x), x.y = widened(narrow.y), x.z = widened(narrow.z), x.w = widened(narrow.w);
        return x;
    }
    if (channel < channels) x.x = widened(pixel[channel]);
    if (channel + 1 < channels) x.y = widened(pixel[channel + 1]);
    if (channel + 2 < channels) x.z = widened(pixel[channel + 2]);
    if (channel + 3 < channels) x.w = widened(pixel[channel + 3]);
    return x;
}

// The same of f32 or bf16 values, of which a pixel's start at `first`.
__device__ float4 four_of(const void *x, int is_narrow, int first, int channel, int channels) {
    return is_narrow ? four_narrow((const unsigned short *)x + first, channel, channels)
                     : four((const float *)x + first, channel, channels);
}

__device__ void put_four(float *pixel, int channel, int channels, float4 x) {
    if (channels % 4 == 0) {
        if (channel < channels) *(float4 *)(pixel + channel) = x;
        return;
    }
    if (channel < channels) pixel[channel] = x.x;
    if (channel + 1 < channels) pixel[channel + 1] = x.y;
    if (channel + 2 < channels) pixel[channel + 2] = x.z;
    if (channel + 3 < channels) pixel[channel + 3] = x.w;
}

__device__ void put_four_narrow(unsigned short *pixel, int channel, int channels, float4 x) {
    if (channels % 4 == 0) {
        if (channel >= channels) return;
        ushort4 narrow;
        narrow.x = narrowed(x.x), narrow.y = narrowed(x.y), narrow.z = narrowed(x.z), narrow.w = narrowed(x.w);
        *(ushort4 *)(pixel + channel) = narrow;
        return;
    }
    if (channel < channels) pixel[channel] = narrowed(x.x);
    if (channel + 1 < channels) pixel[channel + 1] = narrowed(x.y);
    if (channel + 2 < channels) pixel[channel + 2] = narrowed(x.z);
    if (channel + 3 < channels) pixel[channel + 3] = narrowed(x.w);
}

__device__ void put_four_of(void *y, int is_narrow, int first, int channel, int channels, float4 x) {
    if (is_narrow) {
        put_four_narrow((unsigned short *)y + first, channel, channels, x);
    } else {
        put_four((float *)y + first, channel, channels, x);
    }
}

// Slope 1 is no activation, 0 ReLU, which a NaN passes, and its gradient; by another slope what is not above zero is multiplied.
__device__ float activated(float x, float slope) {
    if (slope == 0) return x <= 0 ? 0 : x;
    return x > 0 ? x : slope * x;
}

__device__ float gradient_before(float x, float gradient, float slope) {
    if (slope == 0) return x <= 0 ? 0 : gradient;
    return x > 0 ? gradient : slope * gradient;
}

// ---- values that are moved, and added ----

struct Rows {
    const float *x;
    float *y;
    int len, width, x_step, x_start, y_step, y_start;
    int fours;  // whether all of this counts fours of values
};

// `len` values in rows of `width`, from and to rows of other widths.
KERNEL(copy_rows, Rows) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        int row = i / p.width, column = i % p.width;
        int from = row * p.x_step + p.x_start + column, to = row * p.y_step + p.y_start + column;
        if (p.fours) {
            ((float4 *)p.y)[to] = ((const float4 *)p.x)[from];
        } else {
            p.y[to] = p.x[from];
        }
    }
}

struct Addition {
    const float *x;  // or bf16
    void *y;
    int len, repeat, period;
    int fours;   // whether each thread adds four values side by side, which have one value of x or four
    int narrow;  // whether y is bf16, and x, of the same shape, too
    float keep, take;
};

// y = keep y + take x
KERNEL(add_to, Addition) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; p.fours && i < p.len / 4; i += gridDim.x * THREADS) {
        float4 y = four_of(p.y, p.narrow, 4 * i, 0, 4), x = four_of(p.x, p.narrow, 4 * i, 0, 4);
        y.x = y.x * p.keep + x.x * p.take, y.y = y.y * p.keep + x.y * p.take;
        y.z = y.z * p.keep + x.z * p.take, y.w = y.w * p.keep + x.w * p.take;
        put_four_of(p.y, p.narrow, 4 * i, 0, 4, y);
    }
    if (p.fours) return;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        put_value(p.y, p.narrow, i, value_of(p.y, p.narrow, i) * p.keep + value_of(p.x, p.narrow, i) * p.take);
    }
}

struct Moving {
    const float *mean, *variance;
    float *running_mean, *running_variance;
    int len;
    float keep, take;
};

// Running statistics towards those of a batch.
KERNEL(move_running, Moving) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        p.running_mean[i] = p.running_mean[i] * p.keep + p.mean[i] * p.take;
        p.running_variance[i] = p.running_variance[i] * p.keep + p.variance[i] * p.take;
    }
}

// One value of x, f32, to `repeat` values of y, and x anew after `period` of its values.
KERNEL(add_each, Addition) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; p.fours && i < p.len / 4; i += gridDim.x * THREADS) {
        float4 y = four_of(p.y, p.narrow, 4 * i, 0, 4);
        const float *x = p.x + 4 * i / p.repeat % p.period;
        int next = p.repeat == 1;
        y.x += x[0], y.y += x[next], y.z += x[2 * next], y.w += x[3 * next];
        put_four_of(p.y, p.narrow, 4 * i, 0, 4, y);
    }
    if (p.fours) return;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        put_value(p.y, p.narrow, i, value_of(p.y, p.narrow, i) + p.x[i / p.repeat % p.period]);
    }
}

struct Cast {
    const void *x;
    void *y;
    const float *bias;  // or null
    int len, repeat, period;
};

struct Transposition {
    const float *x;
    void *y;
    int rows, columns;
    int tile_rows, tile_columns;  // of which a block turns one at a time, TILE values at most
    int tiles;                    // of all matrices
    int narrow;                   // whether y is bf16
    int fours;                    // whether all of this, and where x and y lie, counts fours of values
    unsigned by_rows, by_columns; // what `quotient` takes for those of a tile
};

// i / d for i up to TILE, where `by` is 2^32 / d, rounded up.
__device__ int quotient(int i, unsigned by) { return (unsigned long long)i * by >> 32; }

// Matrices (n, rows, columns), to (n, columns, rows): side by side are values that are read, and those that are written.
KERNEL(transpose, Transposition) {
    __shared__ float tile[TILE + TILE / 2];
    int across = (p.columns + p.tile_columns - 1) / p.tile_columns, down = (p.rows + p.tile_rows - 1) / p.tile_rows;
    int pitch = p.tile_columns | 1;  // so that a column lies in many banks
    int step = p.fours ? 4 : 1;
    for (int t = blockIdx.x; t < p.tiles; t += gridDim.x) {
        int matrix = t / across / down, row = t / across % down * p.tile_rows, column = t % across * p.tile_columns;
        int height = min_of(p.rows - row, p.tile_rows), width = min_of(p.columns - column, p.tile_columns);
        const float *x = p.x + (matrix * p.rows + row) * p.columns + column;
        for (int i = threadIdx.x * step; i < height * p.tile_columns; i += THREADS * step) {
            int r = quotient(i, p.by_columns), c = i - r * p.tile_columns;
            if (c >= width) continue;
            float *to = tile + r * pitch + c;
            if (p.fours) {
                float4 value = *(const float4 *)(x + r * p.columns + c);
                to[0] = value.x, to[1] = value.y, to[2] = value.z, to[3] = value.w;
            } else {
                to[0] = x[r * p.columns + c];
            }
        }
        __syncthreads();
        int first = (matrix * p.columns + column) * p.rows + row;
        for (int i = threadIdx.x * step; i < width * p.tile_rows; i += THREADS * step) {
            int c = quotient(i, p.by_rows), r = i - c * p.tile_rows;
            if (r >= height) continue;
            const float *from = tile + r * pitch + c;
            if (p.fours) {
                float4 value = {from[0], from[pitch], from[2 * pitch], from[3 * pitch]};
                put_four_of(p.y, p.narrow, first + c * p.rows + r, 0, 4, value);
            } else {
                put_value(p.y, p.narrow, first + c * p.rows + r, from[0]);
            }
        }
        __syncthreads();
    }
}

struct Phases {
    const void *x;
    void *y;
    const float *bias;  // for each channel of the image, or null
    int len;
    int channels, padded;                              // of the image, and of each of its phases
    int height, width, rows, columns;                  // of the image, and of its phases
    int border;                                        // where the image begins in the first row and column of phases
    int image_step, channel_step, row_step, pixel_step;  // from value to value of the image
    int narrow_x, narrow_y;                            // whether they are bf16
};

// An image (n, channels, height, width), to its phases (n, rows, columns, 2, 2, padded): pixels of even and odd rows and columns, with
// zeros around it and for channels that it has not.
KERNEL(fold, Phases) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        int channel = i % p.padded, phase = i / p.padded % 4, at = i / p.padded / 4;
        int x = at % p.columns * 2 + phase % 2 - p.border, y = at / p.columns % p.rows * 2 + phase / 2 - p.border;
        int image = at / p.columns / p.rows;
        float value = 0;
        if (channel < p.channels && x >= 0 && x < p.width && y >= 0 && y < p.height) {
            int from = image * p.image_step + channel * p.channel_step + y * p.row_step + x * p.pixel_step;
            value = value_of(p.x, p.narrow_x, from);
        }
        put_value(p.y, p.narrow_y, i, value);
    }
}

// Back from the phases, with a bias. The image lies as (n, channels, height, width).
KERNEL(unfold, Phases) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        int x = i % p.width + p.border, y = i / p.width % p.height + p.border;
        int channel = i / p.width / p.height % p.channels, image = i / p.width / p.height / p.channels;
        int at = (image * p.rows + y / 2) * p.columns + x / 2;
        float value = value_of(p.x, p.narrow_x, (4 * at + y % 2 * 2 + x % 2) * p.padded + channel);
        put_value(p.y, p.narrow_y, i, value + (p.bias ? p.bias[channel] : 0));
    }
}

// f32 to bf16.
KERNEL(narrow, Cast) {
    int first = blockIdx.x * THREADS + threadIdx.x;
    for (int i = first; i < p.len / 4; i += gridDim.x * THREADS) {
        float4 x = ((const float4 *)p.x)[i];
        ushort4 y;
        y.x = narrowed(x.x), y.y = narrowed(x.y), y.z = narrowed(x.z), y.w = narrowed(x.w);
        ((ushort4 *)p.y)[i] = y;
    }
    if (first < p.len % 4) {
        int i = p.len - 1 - first;
        ((unsigned short *)p.y)[i] = narrowed(((const float *)p.x)[i]);
    }
}

__device__ float biased(struct Cast p, unsigned short x, int at) {
    return widened(x) + (p.bias ? p.bias[at / p.repeat % p.period] : 0);
}

// bf16 to f32, and one bias to `repeat` values, anew after `period` of them.
KERNEL(widen, Cast) {
    int first = blockIdx.x * THREADS + threadIdx.x;
    for (int i = first; i < p.len / 4; i += gridDim.x * THREADS) {
        ushort4 x = ((const ushort4 *)p.x)[i];
        float4 y;
        y.x = biased(p, x.x, 4 * i), y.y = biased(p, x.y, 4 * i + 1);
        y.z = biased(p, x.z, 4 * i + 2), y.w = biased(p, x.w, 4 * i + 3);
        ((float4 *)p.y)[i] = y;
    }
    if (first < p.len % 4) {
        int i = p.len - 1 - first;
        ((float *)p.y)[i] = biased(p, ((const unsigned short *)p.x)[i], i);
    }
}

// ---- activations ----

struct Activation {
    const void *x, *gradient;
    void *y;
    int len;
    int fours;                    // whether each thread has four values side by side
    int narrow, gradient_narrow;  // whether x and y are bf16, and whether the gradient is
    float slope;
};

KERNEL(activate, Activation) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; p.fours && i < p.len / 4; i += gridDim.x * THREADS) {
        float4 x = four_of(p.x, p.narrow, 4 * i, 0, 4);
        x.x = activated(x.x, p.slope), x.y = activated(x.y, p.slope);
        x.z = activated(x.z, p.slope), x.w = activated(x.w, p.slope);
        put_four_of(p.y, p.narrow, 4 * i, 0, 4, x);
    }
    if (p.fours) return;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        put_value(p.y, p.narrow, i, activated(value_of(p.x, p.narrow, i), p.slope));
    }
}

KERNEL(activate_back, Activation) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; p.fours && i < p.len / 4; i += gridDim.x * THREADS) {
        float4 x = four_of(p.x, p.narrow, 4 * i, 0, 4), g = four_of(p.gradient, p.gradient_narrow, 4 * i, 0, 4);
        x.x = gradient_before(x.x, g.x, p.slope), x.y = gradient_before(x.y, g.y, p.slope);
        x.z = gradient_before(x.z, g.z, p.slope), x.w = gradient_before(x.w, g.w, p.slope);
        put_four_of(p.y, p.narrow, 4 * i, 0, 4, x);
    }
    if (p.fours) return;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        float gradient = value_of(p.gradient, p.gradient_narrow, i);
        put_value(p.y, p.narrow, i, gradient_before(value_of(p.x, p.narrow, i), gradient, p.slope));
    }
}

struct Squash {
    const float *x, *gradient;
    float *y;
    int len, kind;  // 0 tanh, 1 sigmoid
};

KERNEL(squash, Squash) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        float x = p.x[i], e = expf(-fabsf(x));
        p.y[i] = p.kind == 0 ? tanhf(x) : (x >= 0 ? 1 : e) / (1 + e);
    }
}

// By the result, which x is here.
KERNEL(squash_back, Squash) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        float y = p.x[i];
        p.y[i] = p.gradient[i] * (p.kind == 0 ? 1 - y * y : y * (1 - y));
    }
}

// ---- losses: means over values, or over their distances to targets ----

enum { SQUARED, ABSOLUTE, CHARBONNIER, CROSS_ENTROPY, HINGE, MEAN };

struct Loss {
    const float *x;
    const float *target;  // or null, where `constant` is the target of all
    const float *gradient;
    double *parts;  // (blocks)
    float *y;
    int len, blocks, kind;
    float constant, epsilon_squared, sign;
};

__device__ float target_of(struct Loss p, int i) { return p.target ? p.target[i] : p.constant; }

__device__ float loss_of(struct Loss p, float x, float target) {
    float d = x - target, shut;
    switch (p.kind) {
        case SQUARED: return d * d;
        case ABSOLUTE: return fabsf(d);
        case CHARBONNIER: return sqrtf(d * d + p.epsilon_squared);
        case CROSS_ENTROPY: return (x <= 0 ? 0 : x) - x * target + log1pf(expf(-fabsf(x)));
        case HINGE: shut = 1 - target * x; return shut <= 0 ? 0 : shut;
        default: return x;
    }
}

__device__ float slope_of(struct Loss p, float x, float target) {
    float d = x - target, e;
    switch (p.kind) {
        case SQUARED: return 2 * d;
        case ABSOLUTE: return d == 0 ? d : copysignf(1, d);
        case CHARBONNIER: return d / sqrtf(d * d + p.epsilon_squared);
        case CROSS_ENTROPY: e = expf(-fabsf(x)); return (x >= 0 ? 1 : e) / (1 + e) - target;
        case HINGE: return 1 - target * x <= 0 ? 0 : -target;
        default: return 1;
    }
}

KERNEL(loss_parts, Loss) {
    double sum = 0;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        sum += loss_of(p, p.x[i], target_of(p, i));
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) p.parts[blockIdx.x] = sum;
}

KERNEL(mean_loss, Loss) {
    double sum = 0;
    for (int i = threadIdx.x; i < p.blocks; i += THREADS) sum += p.parts[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) p.y[0] = sum / p.len;
}

KERNEL(loss_back, Loss) {
    float scale = p.sign * p.gradient[0] / p.len;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        p.y[i] = slope_of(p, p.x[i], target_of(p, i)) * scale;
    }
}

// ---- batch normalisation ----

// Two sums of each channel, first of the values that one block sees, then of all of them.
struct Sums {
    const float *x, *gradient, *mean, *variance, *weight, *bias;
    double *parts;  // (channels, blocks, 2)
    float *whole;   // (1 to 3, channels)
    unsigned short *narrow;  // where x goes in bf16, or null
    int channels, pixels, count, per_block, blocks, lanes;
    int is_narrow, is_gradient_narrow;  // whether they are bf16, in the order of pixels alone
    float epsilon, slope;
};

KERNEL(statistics_parts, Sums) {
    int channel = blockIdx.x, first = blockIdx.y * p.per_block, end = min_of(p.count - first, p.per_block);
    double sum = 0, squares = 0;
    for (int i = threadIdx.x; i < end; i += THREADS) {
        double x = p.x[place(first + i, channel, p.channels, p.pixels)];
        sum += x;
        squares += x * x;
    }
    sum = block_sum(sum);
    squares = block_sum(squares);
    if (threadIdx.x == 0) {
        double *part = p.parts + 2 * (channel * p.blocks + blockIdx.y);
        part[0] = sum;
        part[1] = squares;
    }
}

__device__ void put_parts(struct Sums p, const double *values, int channel) {
    for (int k = 0; k < 4; ++k) {
        if (threadIdx.x < p.lanes && channel + k < p.channels) {
            double *part = p.parts + 2 * ((channel + k) * p.blocks + blockIdx.y);
            part[0] = values[2 * k];
            part[1] = values[2 * k + 1];
        }
    }
}

__device__ void add_squares(double *sums, double x) {
    sums[0] += x;
    sums[1] += x * x;
}

KERNEL(statistics_parts_by_pixel, Sums) {
    int channel = 4 * (blockIdx.x * p.lanes + threadIdx.x % p.lanes);
    int first = blockIdx.y * p.per_block, end = min_of(p.count - first, p.per_block);
    double sums[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (int i = threadIdx.x / p.lanes; i < end; i += THREADS / p.lanes) {
        float4 x = four_of(p.x, p.is_narrow, (first + i) * p.channels, channel, p.channels);
        add_squares(sums, x.x);
        add_squares(sums + 2, x.y);
        add_squares(sums + 4, x.z);
        add_squares(sums + 6, x.w);
        if (p.narrow && channel < p.channels) {  // which has fours of channels
            ushort4 y;
            y.x = narrowed(x.x), y.y = narrowed(x.y), y.z = narrowed(x.z), y.w = narrowed(x.w);
            *(ushort4 *)(p.narrow + (first + i) * p.channels + channel) = y;
        }
    }
    lane_sums(sums, p.lanes);
    put_parts(p, sums, channel);
}

// Sums alone.
KERNEL(totals, Sums) {
    int channel = blockIdx.x;
    double sum = 0;
    for (int i = threadIdx.x; i < p.blocks; i += THREADS) sum += p.parts[2 * (channel * p.blocks + i)];
    sum = block_sum(sum);
    if (threadIdx.x == 0) p.whole[channel] = sum;
}

// Means, variances divided by the number of values, and by one less.
KERNEL(statistics, Sums) {
    int channel = blockIdx.x;
    double sum = 0, squares = 0;
    for (int i = threadIdx.x; i < p.blocks; i += THREADS) {
        sum += p.parts[2 * (channel * p.blocks + i)];
        squares += p.parts[2 * (channel * p.blocks + i) + 1];
    }
    sum = block_sum(sum);
    squares = block_sum(squares);
    if (threadIdx.x == 0) {
        double mean = sum / p.count, variance = squares / p.count - mean * mean;
        p.whole[channel] = mean;
        variance = variance < 0 ? 0 : variance;
        p.whole[p.channels + channel] = variance;
        p.whole[2 * p.channels + channel] = variance * p.count / (p.count - 1);
    }
}

// With g the gradient before the activation: sums of g d and of g, where d is the distance from the mean.
KERNEL(gradients_parts, Sums) {
    int channel = blockIdx.x, first = blockIdx.y * p.per_block, end = min_of(p.count - first, p.per_block);
    float mean = p.mean[channel], bias = p.bias[channel];
    float scale = p.weight[channel] / sqrtf(p.variance[channel] + p.epsilon);
    double products = 0, sum = 0;
    for (int i = threadIdx.x; i < end; i += THREADS) {
        int at = place(first + i, channel, p.channels, p.pixels);
        float d = p.x[at] - mean;
        double g = gradient_before(d * scale + bias, p.gradient[at], p.slope);
        products += g * d;
        sum += g;
    }
    products = block_sum(products);
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        double *part = p.parts + 2 * (channel * p.blocks + blockIdx.y);
        part[0] = products;
        part[1] = sum;
    }
}

// A channel's scale and shift, and what its gradients go through.
struct Scaling {
    float mean, scale, bias, slope;
};

__device__ struct Scaling scaling(float mean, float variance, float weight, float bias, float epsilon, float slope) {
    struct Scaling of;
    of.mean = mean, of.scale = weight / sqrtf(variance + epsilon), of.bias = bias, of.slope = slope;
    return of;
}

__device__ void add_products(double *sums, struct Scaling of, float x, float gradient) {
    float d = x - of.mean;
    double g = gradient_before(d * of.scale + of.bias, gradient, of.slope);
    sums[0] += g * d;
    sums[1] += g;
}

KERNEL(gradients_parts_by_pixel, Sums) {
    int channel = 4 * (blockIdx.x * p.lanes + threadIdx.x % p.lanes);
    int first = blockIdx.y * p.per_block, end = min_of(p.count - first, p.per_block);
    float4 mean = four(p.mean, channel, p.channels), variance = four(p.variance, channel, p.channels);
    float4 weight = four(p.weight, channel, p.channels), bias = four(p.bias, channel, p.channels);
    struct Scaling a = scaling(mean.x, variance.x, weight.x, bias.x, p.epsilon, p.slope);
    struct Scaling b = scaling(mean.y, variance.y, weight.y, bias.y, p.epsilon, p.slope);
    struct Scaling c = scaling(mean.z, variance.z, weight.z, bias.z, p.epsilon, p.slope);
    struct Scaling d = scaling(mean.w, variance.w, weight.w, bias.w, p.epsilon, p.slope);
    double sums[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (int i = threadIdx.x / p.lanes; i < end; i += THREADS / p.lanes) {
        float4 x = four_of(p.x, p.is_narrow, (first + i) * p.channels, channel, p.channels);
        float4 gradient = four_of(p.gradient, p.is_gradient_narrow, (first + i) * p.channels, channel, p.channels);
        add_products(sums, a, x.x, gradient.x);
        add_products(sums + 2, b, x.y, gradient.y);
        add_products(sums + 4, c, x.z, gradient.z);
        add_products(sums + 6, d, x.w, gradient.w);
    }
    lane_sums(sums, p.lanes);
    put_parts(p, sums, channel);
}

// Gradients of weight and bias.
KERNEL(gradients, Sums) {
    int channel = blockIdx.x;
    double products = 0, sum = 0;
    for (int i = threadIdx.x; i < p.blocks; i += THREADS) {
        products += p.parts[2 * (channel * p.blocks + i)];
        sum += p.parts[2 * (channel * p.blocks + i) + 1];
    }
    products = block_sum(products);
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        p.whole[channel] = products / sqrt((double)p.variance[channel] + p.epsilon);
        p.whole[p.channels + channel] = sum;
    }
}

// One plane, that is one channel of one image, to each row of blocks.
struct Normalisation {
    const float *x, *gradient, *mean, *variance, *weight, *bias;
    const float *sums;    // gradients of weight and bias (2, channels), or null where none flows through mean and variance
    const float *before;  // what is added to x first, a value for each channel, or null
    float *y;
    int channels, pixels, count, lanes;
    int narrow;           // whether x is bf16 and, in the order of pixels, what is written
    int gradient_narrow;  // whether that of the result is, in the order of pixels alone
    float epsilon, slope;
};

KERNEL(normalise, Normalisation) {
    int channel = blockIdx.x % p.channels;
    const float *x = p.x + blockIdx.x * p.pixels;
    const unsigned short *narrow = (const unsigned short *)p.x + blockIdx.x * p.pixels;
    float *y = p.y + blockIdx.x * p.pixels;
    float mean = p.mean[channel] - (p.before ? p.before[channel] : 0), bias = p.bias[channel];
    float scale = p.weight[channel] / sqrtf(p.variance[channel] + p.epsilon);
    for (int i = blockIdx.y * THREADS + threadIdx.x; i < p.pixels; i += gridDim.y * THREADS) {
        y[i] = activated(((p.narrow ? widened(narrow[i]) : x[i]) - mean) * scale + bias, p.slope);
    }
}

KERNEL(normalise_back, Normalisation) {
    int channel = blockIdx.x % p.channels;
    const float *x = p.x + blockIdx.x * p.pixels, *gradient = p.gradient + blockIdx.x * p.pixels;
    float *y = p.y + blockIdx.x * p.pixels;
    float mean = p.mean[channel], bias = p.bias[channel];
    float deviation = sqrtf(p.variance[channel] + p.epsilon), scale = p.weight[channel] / deviation;
    float through_mean = p.sums ? p.sums[p.channels + channel] / p.count : 0;
    float through_variance = p.sums ? p.sums[channel] / p.count / deviation : 0;
    for (int i = blockIdx.y * THREADS + threadIdx.x; i < p.pixels; i += gridDim.y * THREADS) {
        float d = x[i] - mean;
        float g = gradient_before(d * scale + bias, gradient[i], p.slope);
        y[i] = scale * (g - through_mean - d * through_variance);
    }
}

__device__ float normalised(struct Scaling of, float x) { return activated((x - of.mean) * of.scale + of.bias, of.slope); }

KERNEL(normalise_by_pixel, Normalisation) {
    int channel = 4 * (blockIdx.x * p.lanes + threadIdx.x % p.lanes), step = THREADS / p.lanes;
    float4 mean = four(p.mean, channel, p.channels), variance = four(p.variance, channel, p.channels);
    float4 weight = four(p.weight, channel, p.channels), bias = four(p.bias, channel, p.channels);
    if (p.before) {
        float4 before = four(p.before, channel, p.channels);
        mean.x -= before.x, mean.y -= before.y, mean.z -= before.z, mean.w -= before.w;
    }
    struct Scaling a = scaling(mean.x, variance.x, weight.x, bias.x, p.epsilon, p.slope);
    struct Scaling b = scaling(mean.y, variance.y, weight.y, bias.y, p.epsilon, p.slope);
    struct Scaling c = scaling(mean.z, variance.z, weight.z, bias.z, p.epsilon, p.slope);
    struct Scaling d = scaling(mean.w, variance.w, weight.w, bias.w, p.epsilon, p.slope);
    for (int i = blockIdx.y * step + threadIdx.x / p.lanes; i < p.count; i += gridDim.y * step) {
        float4 x = four_of(p.x, p.narrow, i * p.channels, channel, p.channels);
        x.x = normalised(a, x.x), x.y = normalised(b, x.y), x.z = normalised(c, x.z), x.w = normalised(d, x.w);
        put_four_of(p.y, p.narrow, i * p.channels, channel, p.channels, x);
    }
}

// What a value gets back: scale (g - through_mean - d through_variance).
struct Back {
    struct Scaling of;
    float through_mean, through_variance;
};

__device__ struct Back back(struct Scaling of, float variance, float epsilon, float products, float sum, int count) {
    struct Back back;
    back.of = of, back.through_mean = sum / count;
    back.through_variance = products / count / sqrtf(variance + epsilon);
    return back;
}

__device__ float gradient_of(struct Back back, float x, float gradient) {
    float d = x - back.of.mean;
    float g = gradient_before(d * back.of.scale + back.of.bias, gradient, back.of.slope);
    return back.of.scale * (g - back.through_mean - d * back.through_variance);
}

KERNEL(normalise_back_by_pixel, Normalisation) {
    int channel = 4 * (blockIdx.x * p.lanes + threadIdx.x % p.lanes), step = THREADS / p.lanes;
    float4 mean = four(p.mean, channel, p.channels), variance = four(p.variance, channel, p.channels);
    float4 weight = four(p.weight, channel, p.channels), bias = four(p.bias, channel, p.channels);
    float4 products = {0, 0, 0, 0}, sum = {0, 0, 0, 0};
    if (p.sums) {
        products = four(p.sums, channel, p.channels);
        sum = four(p.sums + p.channels, channel, p.channels);
    }
    struct Scaling of = scaling(mean.x, variance.x, weight.x, bias.x, p.epsilon, p.slope);
    struct Back a = back(of, variance.x, p.epsilon, products.x, sum.x, p.count);
    of = scaling(mean.y, variance.y, weight.y, bias.y, p.epsilon, p.slope);
    struct Back b = back(of, variance.y, p.epsilon, products.y, sum.y, p.count);
    of = scaling(mean.z, variance.z, weight.z, bias.z, p.epsilon, p.slope);
    struct Back c = back(of, variance.z, p.epsilon, products.z, sum.z, p.count);
    of = scaling(mean.w, variance.w, weight.w, bias.w, p.epsilon, p.slope);
    struct Back d = back(of, variance.w, p.epsilon, products.w, sum.w, p.count);
    for (int i = blockIdx.y * step + threadIdx.x / p.lanes; i < p.count; i += gridDim.y * step) {
        float4 x = four_of(p.x, p.narrow, i * p.channels, channel, p.channels);
        float4 gradient = four_of(p.gradient, p.gradient_narrow, i * p.channels, channel, p.channels);
        x.x = gradient_of(a, x.x, gradient.x), x.y = gradient_of(b, x.y, gradient.y);
        x.z = gradient_of(c, x.z, gradient.z), x.w = gradient_of(d, x.w, gradient.w);
        put_four_of(p.y, p.narrow, i * p.channels, channel, p.channels, x);
    }
}

// ---- max-pooling ----

struct Pool {
    const void *x, *gradient;
    void *y;
    int len, side, height, width, pooled_height, pooled_width;
    int channels;                 // side by side: 1 in the order of planes, which then are so many images
    int narrow, gradient_narrow;  // whether x and y are bf16, and whether the gradient is
};

// A window's largest value so far and where it lies: the first of equals in row order, and the last NaN if there is one.
struct Largest {
    float value;
    int at;
};

__device__ struct Largest larger(struct Largest so_far, float value, int at) {
    if (at == 0 || value > so_far.value || value != value) so_far.value = value, so_far.at = at;
    return so_far;
}

// Those of four channels.
struct Largests {
    struct Largest a, b, c, d;
};

__device__ struct Largests largests(struct Pool p, int first, int channel) {
    struct Largest none = {0, 0};
    struct Largests all = {none, none, none, none};
    int at = 0;
    for (int row = 0; row < p.side; ++row) {
        for (int column = 0; column < p.side; ++column, ++at) {
            float4 x = four_of(p.x, p.narrow, first + (row * p.width + column) * p.channels, channel, p.channels);
            all.a = larger(all.a, x.x, at), all.b = larger(all.b, x.y, at);
            all.c = larger(all.c, x.z, at), all.d = larger(all.d, x.w, at);
        }
    }
    return all;
}

// A window's first value, its own place among pooled ones, or none that is whole, and four of its channels.
struct Window {
    int first, pooled, channel, row, column;
};

// Of windows that cover `rows` and `columns` of them, with four channels to each thread.
__device__ struct Window window(struct Pool p, int i, int rows, int columns) {
    struct Window of;
    int across = (p.channels + 3) / 4, pixel = i / across, image = pixel / columns / rows;
    of.channel = i % across * 4, of.column = pixel % columns, of.row = pixel / columns % rows;
    of.first = ((image * p.height + of.row * p.side) * p.width + of.column * p.side) * p.channels;
    of.pooled = of.column < p.pooled_width && of.row < p.pooled_height
                    ? ((image * p.pooled_height + of.row) * p.pooled_width + of.column) * p.channels
                    : -1;
    return of;
}

KERNEL(max_pool, Pool) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        struct Window of = window(p, i, p.pooled_height, p.pooled_width);
        struct Largests all = largests(p, of.first, of.channel);
        float4 y = {all.a.value, all.b.value, all.c.value, all.d.value};
        put_four_of(p.y, p.narrow, of.pooled, of.channel, p.channels, y);
    }
}

// Window by window, with those that the border cuts: one pixel of each whole window gets its gradient, all others none.
KERNEL(max_pool_back, Pool) {
    int columns = (p.width + p.side - 1) / p.side, rows = (p.height + p.side - 1) / p.side;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        struct Window of = window(p, i, rows, columns);
        struct Largest none = {0, -1};
        struct Largests all = {none, none, none, none};
        float4 g = {0, 0, 0, 0};
        if (of.pooled >= 0) {
            all = largests(p, of.first, of.channel);
            g = four_of(p.gradient, p.gradient_narrow, of.pooled, of.channel, p.channels);
        }
        int below = min_of(p.side, p.height - of.row * p.side), beside = min_of(p.side, p.width - of.column * p.side);
        for (int y = 0; y < below; ++y) {
            for (int x = 0; x < beside; ++x) {
                int at = y * p.side + x;
                float4 dx = {0, 0, 0, 0};
                if (at == all.a.at) dx.x = g.x;
                if (at == all.b.at) dx.y = g.y;
                if (at == all.c.at) dx.z = g.z;
                if (at == all.d.at) dx.w = g.w;
                put_four_of(p.y, p.narrow, of.first + (y * p.width + x) * p.channels, of.channel, p.channels, dx);
            }
        }
    }
}

// ---- many tensors at once, one to each row of blocks ----

struct Entry {
    float *parameter, *first, *second;
    const float *gradient;
    int len, decays;
};

struct Squares {
    const struct Entry *entries;
    double *parts;  // (tensors, blocks)
    double *sums;   // (tensors)
    int blocks;
};

// Sums of the squares of gradients.
KERNEL(squares_parts, Squares) {
    struct Entry of = p.entries[blockIdx.y];
    double sum = 0;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < of.len; i += gridDim.x * THREADS) {
        double g = of.gradient[i];
        sum += g * g;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) p.parts[blockIdx.y * p.blocks + blockIdx.x] = sum;
}

KERNEL(squares, Squares) {
    double sum = 0;
    for (int i = threadIdx.x; i < p.blocks; i += THREADS) sum += p.parts[blockIdx.x * p.blocks + i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) p.sums[blockIdx.x] = sum;
}

struct Rates {
    float factor, keep, beta1, rest1, beta2, rest2, step_size, inverse_denominator, epsilon;
};

struct Adam {
    const struct Entry *entries;
    struct Rates lasting, decaying;
};

KERNEL(adam, Adam) {
    struct Entry of = p.entries[blockIdx.y];
    struct Rates r = p.lasting;
    if (of.decays) r = p.decaying;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < of.len; i += gridDim.x * THREADS) {
        float g = of.gradient[i] * r.factor;
        float m = of.first[i] * r.beta1 + g * r.rest1;
        float v = of.second[i] * r.beta2 + g * g * r.rest2;
        of.first[i] = m;
        of.second[i] = v;
        of.parameter[i] = of.parameter[i] * r.keep - r.step_size * (m / (sqrtf(v) * r.inverse_denominator + r.epsilon));
    }
}
