//go:build cgo

package divvy

// #include "bridge.h"
import "C"

// Describe lists every setting of the library, with its value in this configuration. Secrets are
// masked.
func (c *Config) Describe() ([]Setting, error) { return describe(c.settings()) }

// Describe lists every setting of the library, with its value in this configuration. Secrets are
// masked.
func (c *ManagerConfig) Describe() ([]Setting, error) { return describe(c.settings()) }

func describe(settings map[string]string) ([]Setting, error) {
	config, err := newConfig(settings, "describe")
	if err != nil {
		return nil, err
	}
	defer C.divvy_config_free(config)
	var all []Setting
	for {
		var handle C.divvy_setting
		var text errorText
		buffer, size := text.at()
		status := C.divvy_setting_at(config, C.size_t(len(all)), &handle, buffer, size)
		if Code(status) == codeNotFound {
			return all, nil
		}
		if err := check(status, "describe", &text); err != nil {
			return nil, err
		}
		of := func(field C.int32_t) string { return C.GoString(C.divvy_setting_text(handle, field, nil)) }
		all = append(all, Setting{
			Name: of(C.DIVVY_SETTING_NAME), Type: of(C.DIVVY_SETTING_TYPE),
			Default: of(C.DIVVY_SETTING_DEFAULT), Range: of(C.DIVVY_SETTING_RANGE),
			Help: of(C.DIVVY_SETTING_HELP), Value: of(C.DIVVY_SETTING_VALUE),
			Origin: of(C.DIVVY_SETTING_ORIGIN),
		})
		C.divvy_setting_free(handle)
	}
}
