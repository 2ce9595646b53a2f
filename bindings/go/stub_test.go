//go:build !cgo

package divvy

import (
	"errors"
	"strings"
	"testing"
)

func TestWithoutCgoEveryCallReportsHowToEnableIt(t *testing.T) {
	_, err := NewCalculator(nil)
	if !errors.Is(err, ErrNoCgo) || !strings.Contains(err.Error(), "make go-lib") {
		t.Fatal(err)
	}
}
