package foreign

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/divvy-rs/divvy/bindings/go/foreign/internal/servers"
)

var heartbeatsSent = regexp.MustCompile(`divvy_worker_heartbeats_total\{[^}]*outcome="success"[^}]*\} (\d+)`)

// The service of the Go guide, run as users run it.
func TestServiceExampleSurvivesServerRestartAndLeavesOnSigterm(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "service")
	build := exec.Command("go", "build", "-o", binary, "./example/service")
	build.Dir = ".."
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	server := servers.StartRestartable(t)
	address := freeAddress(t)
	service := exec.Command(binary)
	service.Env = append(os.Environ(), "DIVVY_NATS_URL="+server.URL, "LISTEN="+address,
		"DIVVY_COLD_START_WINDOW=300ms", "DIVVY_PLANNED_SCALE_WINDOW=300ms", "DIVVY_COOLDOWN=200ms")
	service.Stderr = os.Stderr
	output, err := service.StdoutPipe()
	must(t, err)
	must(t, service.Start())
	t.Cleanup(func() { _ = service.Process.Kill() })

	until(t, "ready", func() bool { status, _ := get(address, "/readyz"); return status == http.StatusOK })
	server.Restart()
	_, page := get(address, "/metrics")
	before := sent(page)
	until(t, "heartbeats again", func() bool { _, page := get(address, "/metrics"); return sent(page) > before+1 })
	if status, _ := get(address, "/livez"); status != http.StatusOK {
		t.Errorf("/livez answers %d", status)
	}

	must(t, service.Process.Signal(syscall.SIGTERM))
	started, stopped := 0, 0
	for lines := bufio.NewScanner(output); lines.Scan(); {
		switch {
		case strings.HasPrefix(lines.Text(), "start tool"):
			started++
		case strings.HasPrefix(lines.Text(), "stop tool"):
			stopped++
		}
	}
	must(t, service.Wait())
	if started != 12 || stopped != 12 {
		t.Errorf("started %d partitions and stopped %d, want 12 each", started, stopped)
	}
}

func sent(page string) int {
	match := heartbeatsSent.FindStringSubmatch(page)
	if match == nil {
		return 0
	}
	count, _ := strconv.Atoi(match[1])
	return count
}

func get(address, path string) (int, string) {
	client := http.Client{Timeout: 5 * time.Second}
	reply, err := client.Get(fmt.Sprintf("http://%s%s", address, path))
	if err != nil {
		return 0, ""
	}
	defer reply.Body.Close()
	body, _ := io.ReadAll(reply.Body)
	return reply.StatusCode, string(body)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	return listener.Addr().String()
}
