// NATS credentials from a C++ callback: supplied, failed by text, by an exception and by bad values.
#include "check.hpp"

#include <memory>
#include <stdexcept>

namespace {

divvy::result opened(divvy::config::credentials supply, divvy::store &out) {
    divvy::config settings({{"nats_url", std::getenv("DIVVY_TEST_NATS_URL")}});
    settings.set_credentials(std::move(supply));
    return divvy::store::try_open(settings, timeout, out);
}

void fails(divvy::config::credentials supply, const char *text) {
    divvy::store none;
    const divvy::result refused = opened(std::move(supply), none);
    CHECK(refused.status() == DIVVY_UNAUTHORIZED);
    if (refused.detail().find(text) == std::string::npos) {
        std::fprintf(stderr, "%s is not in: %s\n", text, refused.detail().c_str());
        std::abort();
    }
}

}  // namespace

int main() {
    const std::shared_ptr<int> alive = std::make_shared<int>(0);
    {
        divvy::store store;
        const divvy::result connected =
            opened([alive](divvy::credentials_sink &sink, const std::string &) { sink.set_token("s3cret"); }, store);
        CHECK(connected);
        CHECK(alive.use_count() == 2);
        CHECK(store.try_ensure(DIVVY_BUCKET_ASSIGNMENT, std::chrono::milliseconds(0), timeout));
    }
    CHECK(alive.use_count() == 1);
    fails([](divvy::credentials_sink &sink, const std::string &) { sink.fail("the vault is sealed"); },
          "the vault is sealed");
    fails([](divvy::credentials_sink &, const std::string &) { throw std::runtime_error("no vault"); },
          "no vault");
    fails([](divvy::credentials_sink &, const std::string &) {}, "set no credentials");
    fails([](divvy::credentials_sink &sink, const std::string &) { CHECK(!sink.try_set_jwt("j", "sig")); },
          "signature has 3 bytes");
    fails([](divvy::credentials_sink &sink, const std::string &) { sink.set_token("wr0ng"); },
          "Authorization Violation");
    return 0;
}
