// Package servers starts NATS servers for tests.
package servers

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// Start starts a nats-server of the test's own and tells its URL: NATS_SERVER, the one in PATH, or the
// newest of .tools.
func Start(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	_ = listener.Close()
	command := exec.Command(binary(t), "-a", "127.0.0.1", "-p", fmt.Sprint(port), "-js", "-sd", t.TempDir())
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	return fmt.Sprintf("nats://127.0.0.1:%d", port)
}

func binary(t testing.TB) string {
	t.Helper()
	if binary := os.Getenv("NATS_SERVER"); binary != "" {
		return binary
	}
	if binary, err := exec.LookPath("nats-server"); err == nil {
		return binary
	}
	folder, err := os.Getwd()
	for ; err == nil && folder != "/"; folder = filepath.Dir(folder) {
		found, _ := filepath.Glob(filepath.Join(folder, ".tools/nats-server/*/nats-server"))
		if len(found) > 0 {
			return slices.Max(found)
		}
	}
	t.Fatal("no nats-server: run `make test`, which fetches one, or set NATS_SERVER")
	return ""
}
