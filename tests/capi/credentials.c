/* NATS credentials that the host supplies. With DIVVY_TEST_LOGIN=jwt the parent process signs: the nonce
 * goes to standard output in hexadecimal digits, the JWT and the signature come back, a line each. */
#include "check.h"

static const char *login;
static divvy_store opened;
static int calls, destroyed, must_hang;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

/* As EXPECT, on a thread of the library: err is the main thread's. */
#define RETURNS(status, call)                                       \
    do {                                                            \
        int32_t got_ = (call);                                      \
        if (got_ != (status)) FAIL("%s returned %s", #call, divvy_status_name(got_)); \
    } while (0)

static void destroy(void *userdata) {
    CHECK(userdata == &calls);
    destroyed++;
}

static divvy_status sign(const char *nonce, size_t length, divvy_credentials credentials) {
    static char jwt[8192], hex[256];
    char signature[64];
    size_t index;
    for (index = 0; index < length; index++) printf("%02x", (unsigned)(unsigned char)nonce[index]);
    printf("\n");
    fflush(stdout);
    CHECK(fgets(jwt, sizeof jwt, stdin) != NULL && fgets(hex, sizeof hex, stdin) != NULL);
    jwt[strcspn(jwt, "\n")] = 0;
    for (index = 0; index < sizeof signature; index++) {
        unsigned byte;
        CHECK(sscanf(hex + 2 * index, "%2x", &byte) == 1);
        signature[index] = (char)byte;
    }
    return divvy_credentials_set_jwt(credentials, jwt, strlen(jwt), signature, sizeof signature, NULL, 0);
}

static int32_t supply(void *userdata, const char *nonce, size_t length, divvy_credentials credentials) {
    divvy_store none = {0};
    CHECK(userdata == &calls);
    pthread_mutex_lock(&mutex);
    calls++;
    pthread_cond_broadcast(&changed);
    if (must_hang) {
        while (must_hang == 1) pthread_cond_wait(&changed, &mutex);
        RETURNS(DIVVY_WOULD_DEADLOCK, divvy_store_stop(opened, 1000, NULL, 0));
    }
    pthread_mutex_unlock(&mutex);
    RETURNS(DIVVY_NULL_ARGUMENT, divvy_store_stop(none, 0, NULL, 0));
    if (strcmp(login, "jwt") == 0) return sign(nonce, length, credentials);
    RETURNS(DIVVY_NULL_ARGUMENT, divvy_credentials_set_token(credentials, NULL, NULL, 0));
    RETURNS(DIVVY_INVALID_ARGUMENT, divvy_credentials_set_jwt(credentials, "j", 1, "sig", 3, NULL, 0));
    RETURNS(DIVVY_INVALID_ARGUMENT, divvy_credentials_set_jwt(credentials, "", 0, "sig", 3, NULL, 0));
    RETURNS(DIVVY_NULL_ARGUMENT, divvy_credentials_set_jwt(credentials, NULL, 1, "sig", 3, NULL, 0));
    RETURNS(DIVVY_TOO_LONG, divvy_credentials_set_jwt(credentials, "j", 1 << 20, "sig", 3, NULL, 0));
    return divvy_credentials_set_token(credentials, "s3cret", NULL, 0);
}

static divvy_credentials kept;

static int32_t keep(void *userdata, const char *nonce, size_t length, divvy_credentials credentials) {
    (void)userdata, (void)nonce, (void)length;
    kept = credentials;
    return DIVVY_OK;
}

static int32_t seal(void *userdata, const char *nonce, size_t length, divvy_credentials credentials) {
    (void)userdata, (void)nonce, (void)length, (void)credentials;
    RETURNS(DIVVY_OK, divvy_callback_set_error("the vault is sealed", NULL, 0));
    return DIVVY_UNAVAILABLE;
}

static divvy_config with(divvy_credentials_fn callback) {
    divvy_config config = new_config();
    OK(divvy_config_set_credentials(config, callback, &calls, destroy, ERR));
    return config;
}

static void failing(divvy_credentials_fn callback, const char *text) {
    divvy_config config = with(callback);
    divvy_store store = {0};
    EXPECT(DIVVY_UNAUTHORIZED, divvy_store_open(config, TIMEOUT, &store, ERR));
    CHECK(strstr(err, text) != NULL && store.id == 0);
    OK(divvy_config_free(config));
}

/* A worker with a cache file does not wait for the connection. */
static void hanging(void) {
    divvy_config config = with(supply);
    int before = calls;
    must_hang = 1;
    OK(divvy_config_set(config, "cache_file", "/tmp/divvy-test-credentials.json", ERR));
    OK(divvy_store_open(config, TIMEOUT, &opened, ERR));
    OK(divvy_config_free(config));
    EXPECT(DIVVY_TIMED_OUT, divvy_store_stop(opened, 50, ERR));
    CHECK(strstr(err, "dv-nats-io") != NULL && strstr(err, "credentials callback") != NULL);
    pthread_mutex_lock(&mutex);
    CHECK(calls == before + 1);
    must_hang = 2;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
    OK(divvy_store_stop(opened, TIMEOUT, ERR));
    OK(divvy_store_free(opened));
}

int main(void) {
    divvy_config config;
    divvy_store store = {0};
    int before, threads = running_threads();
    login = getenv("DIVVY_TEST_LOGIN");
    if (login == NULL) login = "token";

    config = with(supply);
    OK(divvy_store_open(config, TIMEOUT, &store, ERR));
    CHECK(calls == 1);
    OK(divvy_config_free(config));
    CHECK(destroyed == 0);
    OK(divvy_store_ensure(store, DIVVY_BUCKET_ASSIGNMENT, 0, TIMEOUT, ERR));
    OK(divvy_store_put(store, DIVVY_BUCKET_ASSIGNMENT, "k", "v", 1, TIMEOUT, ERR));
    OK(divvy_store_free(store));
    CHECK(destroyed == 1);
    if (strcmp(login, "jwt") == 0) return 0;

    failing(seal, "the vault is sealed");
    failing(keep, "set no credentials");
    EXPECT(DIVVY_BAD_HANDLE, divvy_credentials_set_token(kept, "t", ERR));
    EXPECT(DIVVY_BAD_HANDLE, divvy_credentials_set_jwt(kept, "j", 1, "sig", 3, ERR));
    CHECK(destroyed == 3);

    config = with(supply);
    OK(divvy_config_set(config, "nats_token", "t", ERR));
    EXPECT(DIVVY_INVALID_CONFIG, divvy_store_open(config, TIMEOUT, &store, ERR));
    CHECK(strstr(err, "credentials callback") != NULL);
    before = calls;
    OK(divvy_config_set_credentials(config, NULL, NULL, NULL, ERR));
    CHECK(destroyed == 4);
    EXPECT(DIVVY_UNAUTHORIZED, divvy_store_open(config, TIMEOUT, &store, ERR));
    CHECK(calls == before);
    OK(divvy_config_free(config));

    hanging();
    CHECK(destroyed == 5);
    WAIT_UNTIL(running_threads() == threads);
    return 0;
}
