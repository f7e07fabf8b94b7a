// Runs the kernels on a processor, block after block, with a thread for each thread: what tests can see of them without a CUDA device.
#include <math.h>
#include <pthread.h>
#include <stddef.h>

#define THREADS 16
#define TILE 64
#define __device__ static
#define __shared__ static
#define __syncthreads() pthread_barrier_wait(&barrier)

typedef struct {
    float x, y, z, w;
} float4;
typedef struct {
    unsigned short x, y, z, w;
} ushort4;

// The threads of a block run side by side, its blocks one after the other, so that a static variable is as good as shared memory.
#define KERNEL(name, Parameters)                                                                   \
    static void name##_thread(struct Parameters p);                                                \
    static void name##_of(const void *p) { name##_thread(*(const struct Parameters *)p); }         \
    int name(const void *p, int columns, int rows) { return run(name##_of, p, columns, rows); }    \
    static void name##_thread(struct Parameters p)

struct Index {
    int x, y;
};

static _Thread_local struct Index threadIdx, blockIdx;
static struct Index gridDim;
static pthread_barrier_t barrier;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static void (*kernel)(const void *);
static const void *parameters;

static void *thread(void *number) {
    threadIdx.x = (int)(size_t)number;
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y) {
        for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) {
            kernel(parameters);
            __syncthreads();
        }
    }
    return NULL;
}

// 0, or what the system refuses.
static int run(void (*of)(const void *), const void *p, int columns, int rows) {
    pthread_t threads[THREADS];
    size_t started = 0;
    int error;
    pthread_mutex_lock(&one_at_a_time);
    kernel = of, parameters = p, gridDim.x = columns, gridDim.y = rows;
    error = pthread_barrier_init(&barrier, NULL, THREADS);
    while (!error && started < THREADS) {
        error = pthread_create(&threads[started], NULL, thread, (void *)started);
        if (!error) ++started;
    }
    // With some threads missing the others would wait at the barrier for ever.
    if (!error) {
        while (started > 0) pthread_join(threads[--started], NULL);
        pthread_barrier_destroy(&barrier);
    }
    pthread_mutex_unlock(&one_at_a_time);
    return error;
}

#include "kernels.cu"
