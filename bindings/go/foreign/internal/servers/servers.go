// Package servers starts NATS servers for tests.
package servers

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Start starts a nats-server for the test and returns its URL. It uses NATS_SERVER, the one in
// PATH, or the newest of .tools.
func Start(t testing.TB) string {
	t.Helper()
	return start(t, binary(t))
}

// Kind is a server of one version.
type Kind struct{ Version, URL string }

// Kinds starts the oldest and the newest server of .tools, which differ in their features. If there
// are none, it starts the server of [Start].
func Kinds(t testing.TB) []Kind {
	t.Helper()
	found := fetched()
	if len(found) == 0 || os.Getenv("NATS_SERVER") != "" {
		return []Kind{{"any", Start(t)}}
	}
	var kinds []Kind
	for _, binary := range slices.Compact([]string{found[0], found[len(found)-1]}) {
		kinds = append(kinds, Kind{filepath.Base(filepath.Dir(binary)), start(t, binary)})
	}
	return kinds
}

// StartWith starts a server as [Start] does, with a configuration file of this content.
func StartWith(t testing.TB, config string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "server.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, binary(t), "-c", file)
}

func start(t testing.TB, binary string, more ...string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	_ = listener.Close()
	arguments := []string{"-a", "127.0.0.1", "-p", fmt.Sprint(port), "-js", "-sd", t.TempDir()}
	command := exec.Command(binary, append(arguments, more...)...)
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

// Restartable is a server that a test can kill and start again on the same port and data.
type Restartable struct {
	URL     string
	t       testing.TB
	binary  string
	port    int
	folder  string
	command *exec.Cmd
}

// StartRestartable starts a server that can be restarted.
func StartRestartable(t testing.TB) *Restartable {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	_ = listener.Close()
	server := &Restartable{
		URL: fmt.Sprintf("nats://127.0.0.1:%d", port), t: t, binary: binary(t), port: port, folder: t.TempDir(),
	}
	server.run()
	t.Cleanup(server.kill)
	return server
}

// Restart kills the server and starts it again.
func (r *Restartable) Restart() {
	r.kill()
	r.run()
}

func (r *Restartable) run() {
	r.command = exec.Command(r.binary, "-a", "127.0.0.1", "-p", fmt.Sprint(r.port), "-js", "-sd", r.folder)
	r.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.command.Start(); err != nil {
		r.t.Fatal(err)
	}
	for range 1000 { // ConnectNATS fails immediately while the port is closed
		if connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port)); err == nil {
			_ = connection.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Fatal("nats-server does not listen")
}

func (r *Restartable) kill() {
	_ = r.command.Process.Kill()
	_ = r.command.Wait()
}

func binary(t testing.TB) string {
	t.Helper()
	if binary := os.Getenv("NATS_SERVER"); binary != "" {
		return binary
	}
	if binary, err := exec.LookPath("nats-server"); err == nil {
		return binary
	}
	if found := fetched(); len(found) > 0 {
		return found[len(found)-1]
	}
	t.Fatal("no nats-server: run `make test-go`, which fetches one, or set NATS_SERVER")
	return ""
}

// fetched returns the servers in .tools, oldest first.
func fetched() []string {
	folder, err := os.Getwd()
	for ; err == nil && folder != "/"; folder = filepath.Dir(folder) {
		found, _ := filepath.Glob(filepath.Join(folder, ".tools/nats-server/*/nats-server"))
		if len(found) > 0 {
			slices.SortFunc(found, func(a, b string) int {
				return slices.Compare(version(a), version(b))
			})
			return found
		}
	}
	return nil
}

// version parses the version of the folder of a server: 2.10.26.
func version(binary string) []int {
	var parts []int
	for _, part := range strings.Split(filepath.Base(filepath.Dir(binary)), ".") {
		number, _ := strconv.Atoi(part)
		parts = append(parts, number)
	}
	return parts
}
