/* When a callback has ended and its userdata is freed: across handles and threads, and for a hanging
 * log callback. */
#include "check.h"

/* A gate that blocks a callback. */
typedef struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int is_entered, is_open;
} gate;

static void gate_make(gate *self) {
    memset(self, 0, sizeof *self);
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->changed, NULL);
}

static void gate_pass(gate *self) {
    pthread_mutex_lock(&self->lock);
    self->is_entered = 1;
    pthread_cond_broadcast(&self->changed);
    while (!self->is_open) pthread_cond_wait(&self->changed, &self->lock);
    pthread_mutex_unlock(&self->lock);
}

static void gate_wait_until_entered(gate *self) {
    pthread_mutex_lock(&self->lock);
    while (!self->is_entered) pthread_cond_wait(&self->changed, &self->lock);
    pthread_mutex_unlock(&self->lock);
}

static void gate_open(gate *self) {
    pthread_mutex_lock(&self->lock);
    self->is_open = 1;
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->lock);
}

static void gate_free(gate *self) {
    pthread_cond_destroy(&self->changed);
    pthread_mutex_destroy(&self->lock);
}

static divvy_calculator new_calculator(divvy_config config, divvy_store store) {
    divvy_calculator calculator = {0};
    OK(divvy_calculator_new(config, store, &calculator, ERR));
    return calculator;
}

/* The userdata of a subscription: the sanitizers detect a use after free. */
typedef struct owned {
    gate *passes;
    int calls;
} owned;

static int destroyed;

static void on_slow(void *userdata, divvy_event event) {
    owned *self = (owned *)userdata;
    (void)event;
    gate_pass(self->passes);
    self->calls++;
}

static void on_destroy(void *userdata) {
    __atomic_add_fetch(&destroyed, 1, __ATOMIC_SEQ_CST);
    free(userdata);
}

static int destroyed_now(void) { return __atomic_load_n(&destroyed, __ATOMIC_SEQ_CST); }

/* A callback of one calculator that ends the subscription of another one. */
typedef struct ending {
    divvy_subscription other;
    gate *passes;
    int is_done;
} ending;

static void on_end_other(void *userdata, divvy_event event) {
    ending *self = (ending *)userdata;
    (void)event;
    if (self->is_done) return;
    self->is_done = 1;
    /* It runs and waits for this callback: OK must not be returned before it has returned. */
    gate_wait_until_entered(self->passes);
    EXPECT(DIVVY_TIMED_OUT, divvy_subscription_free(self->other, 50, ERR));
    CHECK(destroyed_now() == 0);
    gate_open(self->passes);
    OK(divvy_subscription_free(self->other, TIMEOUT, ERR));
    CHECK(destroyed_now() == 1);
}

static void a_callback_of_another_handle_waits(divvy_config config, divvy_store store) {
    divvy_calculator slow = new_calculator(config, store), other = new_calculator(config, store);
    divvy_subscription subscription = {0};
    gate passes;
    ending ends;
    owned *userdata = (owned *)calloc(1, sizeof *userdata);
    gate_make(&passes);
    userdata->passes = &passes;
    memset(&ends, 0, sizeof ends);
    ends.passes = &passes;
    destroyed = 0;
    OK(divvy_calculator_subscribe(slow, DIVVY_FILTER_STATE, on_slow, userdata, on_destroy,
                                  &ends.other, ERR));
    OK(divvy_calculator_start(slow, TIMEOUT, ERR));
    OK(divvy_calculator_subscribe(other, DIVVY_FILTER_STATE, on_end_other, &ends, NULL,
                                  &subscription, ERR));
    OK(divvy_calculator_start(other, TIMEOUT, ERR));
    WAIT_UNTIL(destroyed_now() == 1);
    OK(divvy_subscription_free(subscription, TIMEOUT, ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_subscription_free(ends.other, 0, ERR));
    OK(divvy_calculator_free(other, ERR));
    OK(divvy_calculator_free(slow, ERR));
    gate_free(&passes);
}

static divvy_subscription shared;

static void *end_shared(void *argument) {
    char why[256];
    (void)argument;
    CHECK(divvy_subscription_free(shared, TIMEOUT, why, sizeof why) == DIVVY_OK);
    CHECK(destroyed_now() == 1);
    return NULL;
}

static void threads_that_end_one_subscription_all_wait(divvy_config config, divvy_store store) {
    divvy_calculator slow = new_calculator(config, store);
    pthread_t threads[4];
    gate passes;
    int index;
    owned *userdata = (owned *)calloc(1, sizeof *userdata);
    gate_make(&passes);
    userdata->passes = &passes;
    destroyed = 0;
    OK(divvy_calculator_subscribe(slow, DIVVY_FILTER_STATE, on_slow, userdata, on_destroy, &shared,
                                  ERR));
    OK(divvy_calculator_start(slow, TIMEOUT, ERR));
    gate_wait_until_entered(&passes);
    /* Fails on every thread while the callback runs. */
    EXPECT(DIVVY_TIMED_OUT, divvy_subscription_free(shared, 0, ERR));
    for (index = 0; index < 4; index++)
        CHECK(pthread_create(&threads[index], NULL, end_shared, NULL) == 0);
    EXPECT(DIVVY_TIMED_OUT, divvy_subscription_free(shared, 20, ERR));
    CHECK(destroyed_now() == 0);
    gate_open(&passes);
    for (index = 0; index < 4; index++) pthread_join(threads[index], NULL);
    OK(divvy_calculator_free(slow, ERR));
    gate_free(&passes);
}

/* The log callback hangs at its first record, and receives no other. */
typedef struct log_host {
    gate passes;
    int calls, destroyed;
} log_host;

static void on_line(void *userdata, int32_t level, const char *target, const char *message,
                    size_t length, divvy_log_record record) {
    log_host *self = (log_host *)userdata;
    (void)level, (void)target, (void)message, (void)length, (void)record;
    __atomic_add_fetch(&self->calls, 1, __ATOMIC_SEQ_CST);
    gate_pass(&self->passes);
}

static void on_log_destroy(void *userdata) {
    __atomic_add_fetch(&((log_host *)userdata)->destroyed, 1, __ATOMIC_SEQ_CST);
}

static void *take_the_log_away(void *argument) {
    char why[256];
    (void)argument;
    CHECK(divvy_log_set(DIVVY_LOG_OFF, NULL, NULL, NULL, why, sizeof why) == DIVVY_TIMED_OUT);
    return NULL;
}

int main(void) {
    divvy_config config = new_config();
    divvy_store store = new_store(config);
    divvy_partitions list = new_partitions(1);
    pthread_t thread;
    log_host host;

    memset(&host, 0, sizeof host);
    gate_make(&host.passes);
    OK(divvy_log_set(DIVVY_LOG_TRACE, on_line, &host, on_log_destroy, ERR));
    a_callback_of_another_handle_waits(config, store);
    gate_wait_until_entered(&host.passes);
    CHECK(pthread_create(&thread, NULL, take_the_log_away, NULL) == 0);
    threads_that_end_one_subscription_all_wait(config, store);
    pthread_join(thread, NULL);

    CHECK(host.calls == 1 && host.destroyed == 0);
    gate_open(&host.passes);
    /* Waits for the thread of the previous call. */
    OK(divvy_log_set(DIVVY_LOG_OFF, NULL, NULL, NULL, ERR));
    CHECK(host.calls == 1 && host.destroyed == 1);

    gate_free(&host.passes);
    OK(divvy_partitions_free(list));
    OK(divvy_store_free(store));
    OK(divvy_config_free(config));
    return 0;
}
