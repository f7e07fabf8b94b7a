// Kernels for CUDA devices, compiled by NVRTC when a process first needs them.
//
// Each is given one structure, which its user in Rust has a twin of, and runs in blocks of THREADS threads. Nothing adds up in the order
// in which threads finish. All of it is C as well, so that tests can run it on a processor: see emulator.c.

// Images are (n, channels, pixels); `count` are the n * pixels values of a channel.

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

// Slope 1 is no activation, 0 ReLU, which a NaN passes, and its gradient; by another slope what is not above zero is multiplied.
__device__ float activated(float x, float slope) {
    if (slope == 0) return x <= 0 ? 0 : x;
    return x > 0 ? x : slope * x;
}

__device__ float gradient_before(float x, float gradient, float slope) {
    if (slope == 0) return x <= 0 ? 0 : gradient;
    return x > 0 ? gradient : slope * gradient;
}

// ---- activations ----

struct Activation {
    const float *x, *gradient;
    float *y;
    int len;
    float slope;
};

KERNEL(activate, Activation) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        p.y[i] = activated(p.x[i], p.slope);
    }
}

KERNEL(activate_back, Activation) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        p.y[i] = gradient_before(p.x[i], p.gradient[i], p.slope);
    }
}

// ---- batch normalisation ----

// Two sums of each channel, first of the values that one block sees, then of all of them.
struct Sums {
    const float *x, *gradient, *mean, *variance, *weight, *bias;
    double *parts;  // (channels, blocks, 2)
    float *whole;   // (2, channels)
    int channels, pixels, count, per_block, blocks;
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

// Means, and variances divided by the number of values.
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
        p.whole[p.channels + channel] = variance < 0 ? 0 : variance;
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
    const float *sums;  // gradients of weight and bias (2, channels), or null where none flows through mean and variance
    float *y;
    int channels, pixels, count;
    float epsilon, slope;
};

KERNEL(normalise, Normalisation) {
    int channel = blockIdx.x % p.channels;
    const float *x = p.x + blockIdx.x * p.pixels;
    float *y = p.y + blockIdx.x * p.pixels;
    float mean = p.mean[channel], bias = p.bias[channel];
    float scale = p.weight[channel] / sqrtf(p.variance[channel] + p.epsilon);
    for (int i = blockIdx.y * THREADS + threadIdx.x; i < p.pixels; i += gridDim.y * THREADS) {
        y[i] = activated((x[i] - mean) * scale + bias, p.slope);
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

// ---- max-pooling ----

struct Pool {
    const float *x, *gradient;
    float *y;
    int len, side, height, width, pooled_height, pooled_width;
};

// Where the largest value of a window lies: the first of equals in row order, and the last NaN if there is one.
__device__ int winner(const float *x, int side, int width) {
    int best = 0;
    for (int row = 0; row < side; ++row) {
        for (int column = 0; column < side; ++column) {
            int rival = row * width + column;
            if (x[rival] > x[best] || x[rival] != x[rival]) best = rival;
        }
    }
    return best;
}

KERNEL(max_pool, Pool) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        int column = i % p.pooled_width, row = i / p.pooled_width % p.pooled_height;
        int plane = i / p.pooled_width / p.pooled_height;
        const float *window = p.x + (plane * p.height + row * p.side) * p.width + column * p.side;
        p.y[i] = window[winner(window, p.side, p.width)];
    }
}

// A pixel gets its window's gradient, or none.
KERNEL(max_pool_back, Pool) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        int column = i % p.width / p.side, row = i / p.width % p.height / p.side;
        int plane = i / p.width / p.height;
        float gradient = 0;
        if (column < p.pooled_width && row < p.pooled_height) {
            int window = (plane * p.height + row * p.side) * p.width + column * p.side;
            if (window + winner(p.x + window, p.side, p.width) == i) {
                gradient = p.gradient[(plane * p.pooled_height + row) * p.pooled_width + column];
            }
        }
        p.y[i] = gradient;
    }
}

// ---- Adam ----

struct Adam {
    float *parameter, *first, *second;
    const float *gradient;
    int len;
    float factor, keep, beta1, rest1, beta2, rest2, step_size, inverse_denominator, epsilon;
};

KERNEL(adam, Adam) {
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < p.len; i += gridDim.x * THREADS) {
        float g = p.gradient[i] * p.factor;
        float m = p.first[i] * p.beta1 + g * p.rest1;
        float v = p.second[i] * p.beta2 + g * g * p.rest2;
        p.first[i] = m;
        p.second[i] = v;
        p.parameter[i] = p.parameter[i] * p.keep - p.step_size * (m / (sqrtf(v) * p.inverse_denominator + p.epsilon));
    }
}
