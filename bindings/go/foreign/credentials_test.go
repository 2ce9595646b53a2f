package foreign

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	divvy "github.com/divvy-rs/divvy/bindings/go"
	"github.com/divvy-rs/divvy/bindings/go/foreign/internal/servers"
	"github.com/nats-io/nkeys"
)

// claims are a JWT of NATS: content about subject, signed by issuer.
func claims(t testing.TB, issuer, subject nkeys.KeyPair, content map[string]any) string {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	body, err := json.Marshal(map[string]any{
		"jti": "id-" + public(t, subject), "iat": 1_700_000_000, "iss": public(t, issuer),
		"name": "test", "sub": public(t, subject), "nats": content,
	})
	must(t, err)
	signed := encode([]byte(`{"typ":"JWT","alg":"ed25519-nkey"}`)) + "." + encode(body)
	signature, err := issuer.Sign([]byte(signed))
	must(t, err)
	return signed + "." + encode(signature)
}

func public(t testing.TB, pair nkeys.KeyPair) string {
	t.Helper()
	key, err := pair.PublicKey()
	must(t, err)
	return key
}

func pair(t testing.TB, create func() (nkeys.KeyPair, error)) nkeys.KeyPair {
	t.Helper()
	made, err := create()
	must(t, err)
	return made
}

// operated is the configuration of a server that accepts JWTs of users of one account, and its key.
func operated(t testing.TB) (string, nkeys.KeyPair) {
	t.Helper()
	operator, account := pair(t, nkeys.CreateOperator), pair(t, nkeys.CreateAccount)
	system := pair(t, nkeys.CreateAccount)
	ofAccount := func(storage int) map[string]any {
		limits := map[string]any{
			"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
			"leaf": -1, "mem_storage": storage, "disk_storage": storage, "streams": storage, "consumer": storage,
		}
		return map[string]any{"type": "account", "version": 2, "limits": limits}
	}
	text := fmt.Sprintf("operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload { %s: %s, %s: %s }\n",
		claims(t, operator, operator, map[string]any{
			"type": "operator", "version": 2, "system_account": public(t, system),
		}),
		public(t, system),
		public(t, account), claims(t, operator, account, ofAccount(-1)),
		public(t, system), claims(t, operator, system, ofAccount(0)))
	return text, account
}

func works(t *testing.T, options divvy.NATSOptions) {
	t.Helper()
	store, err := divvy.ConnectNATS(patient(t), options)
	must(t, err)
	must(t, store.Ensure(patient(t), divvy.BucketAssignment, 0))
	must(t, store.Put(patient(t), divvy.BucketAssignment, "k", []byte("v")))
	must(t, store.Close())
}

func TestCredentialsCallbackSuppliesTokenOrJWT(t *testing.T) {
	config, account := operated(t)
	user := pair(t, nkeys.CreateUser)
	token := claims(t, account, user, map[string]any{
		"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
	})
	works(t, divvy.NATSOptions{
		URLs: []string{servers.StartWith(t, config)},
		Credentials: func(_ context.Context, nonce []byte) (divvy.NATSCredentials, error) {
			signature, err := user.Sign(nonce)
			return divvy.NATSCredentials{JWT: token, Signature: signature}, err
		},
	})

	url := servers.StartWith(t, "authorization { token: s3cret }")
	with := func(supply func() (divvy.NATSCredentials, error)) divvy.NATSOptions {
		return divvy.NATSOptions{
			URLs: []string{url},
			Credentials: func(context.Context, []byte) (divvy.NATSCredentials, error) {
				return supply()
			},
		}
	}
	works(t, with(func() (divvy.NATSCredentials, error) {
		return divvy.NATSCredentials{Token: "s3cret"}, nil
	}))
	for text, supply := range map[string]func() (divvy.NATSCredentials, error){
		"Authorization Violation": func() (divvy.NATSCredentials, error) {
			return divvy.NATSCredentials{Token: "wr0ng"}, nil
		},
		"vault is sealed": func() (divvy.NATSCredentials, error) {
			return divvy.NATSCredentials{}, errors.New("vault is sealed")
		},
		"sealed ? shut": func() (divvy.NATSCredentials, error) {
			return divvy.NATSCredentials{}, errors.New("vault is sealed \x00 shut")
		},
		"panicked": func() (divvy.NATSCredentials, error) { panic("as the test wants") },
		"signature has 3 b": func() (divvy.NATSCredentials, error) {
			return divvy.NATSCredentials{JWT: "j", Signature: []byte("sig")}, nil
		},
	} {
		_, err := divvy.ConnectNATS(patient(t), with(supply))
		if !errors.Is(err, divvy.ErrUnauthorized) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
	both := with(func() (divvy.NATSCredentials, error) { return divvy.NATSCredentials{}, nil })
	both.Token = "s3cret"
	if _, err := divvy.ConnectNATS(patient(t), both); !errors.Is(err, divvy.ErrInvalidConfig) {
		t.Error(err)
	}
}

func TestCredentialsAreAskedForAtEachConnectAndTheirContextEndsWithTheStore(t *testing.T) {
	server := servers.StartRestartable(t)
	var calls atomic.Int32
	hanging, ended := make(chan struct{}), make(chan struct{})
	store, err := divvy.ConnectNATS(patient(t), divvy.NATSOptions{
		URLs: []string{server.URL},
		Credentials: func(ctx context.Context, _ []byte) (divvy.NATSCredentials, error) {
			if calls.Add(1) > 1 {
				close(hanging)
				<-ctx.Done()
				close(ended)
			}
			return divvy.NATSCredentials{Token: "any"}, nil
		},
	})
	must(t, err)
	server.Restart()
	select {
	case <-hanging:
	case <-time.After(timeout):
		t.Fatal("not asked again")
	}
	began := time.Now()
	must(t, store.Close())
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the close took %v", took)
	}
	<-ended
}
