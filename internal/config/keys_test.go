package config

import (
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// Every key of a file has a value here that is not its default, and what becomes of
// it: a key that is documented and does nothing fails, and so does one that is new
// and not here.
func TestEveryKeyDoesSomething(t *testing.T) {
	s := time.Second
	cases := map[string]struct {
		toml string
		want any
		get  func(r *Run) any
	}{
		"workers":             {`5`, "5", func(r *Run) any { return r.Workers }},
		"ports":               {`[3000, 3001]`, []string{"3000", "3001"}, func(r *Run) any { return r.Ports }},
		"ready_when":          {`"ready"`, "ready", func(r *Run) any { return r.ReadyWhen }},
		"ready_timeout":       {`"7s"`, 7 * s, func(r *Run) any { return r.ReadyTimeout }},
		"drain_timeout":       {`7`, 7 * s, func(r *Run) any { return r.DrainTimeout }},
		"kill_grace":          {`7`, 7 * s, func(r *Run) any { return r.KillGrace }},
		"quiet_timeout":       {`7`, 7 * s, func(r *Run) any { return r.QuietTimeout }},
		"respawn":             {`7`, 7 * s, func(r *Run) any { return r.Respawn }},
		"backoff":             {`7`, 7 * s, func(r *Run) any { return r.Backoff }},
		"max_failures":        {`7`, 7, func(r *Run) any { return r.MaxFailures }},
		"strategy":            {`"slot"`, "slot", func(r *Run) any { return r.Strategy }},
		"surge":               {`2`, 2, func(r *Run) any { return r.Surge }},
		"overlap":             {`"none"`, "none", func(r *Run) any { return r.Overlap }},
		"ready_delay":         {`7`, 7 * s, func(r *Run) any { return r.ReadyDelay }},
		"canary":              {`7`, 7 * s, func(r *Run) any { return r.Canary }},
		"balance":             {`"sticky"`, "sticky", func(r *Run) any { return r.Balance }},
		"contract":            {`"bind"`, "bind", func(r *Run) any { return r.Contract }},
		"drain_signal":        {`"QUIT"`, "QUIT", func(r *Run) any { return r.DrainSignal }},
		"hold":                {`["8000"]`, []string{"8000"}, func(r *Run) any { return r.HoldOnly }},
		"allow":               {`["80"]`, []string{"80"}, func(r *Run) any { return r.Allow }},
		"may_drop":            {`["9090"]`, []string{"9090"}, func(r *Run) any { return r.MayDrop }},
		"no_hold":             {`"9229"`, []string{"9229"}, func(r *Run) any { return r.NoHold }},
		"listen":              {`["web=8000"]`, []string{"web=8000"}, func(r *Run) any { return r.Listen }},
		"watchdog":            {`7`, 7 * s, func(r *Run) any { return r.Watchdog }},
		"drain_spread":        {`7`, 7 * s, func(r *Run) any { return r.DrainSpread }},
		"upgrade_timeout":     {`7`, 7 * s, func(r *Run) any { return r.UpgradeTimeout }},
		"keepalive_linger":    {`7`, 7 * s, func(r *Run) any { return r.Linger }},
		"keep_connections":    {`"all"`, "all", func(r *Run) any { return r.KeepConns }},
		"slot_variable":       {`"NODE_APP_INSTANCE"`, "NODE_APP_INSTANCE", func(r *Run) any { return r.SlotVariable }},
		"drain_message":       {`"shutdown"`, "shutdown", func(r *Run) any { return r.DrainMessage }},
		"websocket_close":     {`1012`, 1012, func(r *Run) any { return r.WebsocketClose }},
		"no_preload":          {`true`, true, func(r *Run) any { return r.NoPreload }},
		"pid_file":            {`"/run/x"`, "/run/x", func(r *Run) any { return r.PIDFile }},
		"name":                {`"web"`, "web", func(r *Run) any { return r.Name }},
		"cwd":                 {`"/srv"`, "/srv", func(r *Run) any { return r.Dir }},
		"env":                 {`{ A = "1" }`, []string{"A=1"}, func(r *Run) any { return r.Env }},
		"env_file":            {`".env"`, ".env", func(r *Run) any { return r.EnvFile }},
		"log":                 {`"json"`, "json", func(r *Run) any { return r.Log }},
		"log_level":           {`"debug"`, "debug", func(r *Run) any { return r.LogLevel }},
		"log_file":            {`"x.log"`, "x.log", func(r *Run) any { return r.LogFile }},
		"watch":               {`["**"]`, []string{"**"}, func(r *Run) any { return r.Watch }},
		"watch_ignore":        {`["tmp"]`, []string{"tmp"}, func(r *Run) any { return r.WatchIgnore }},
		"watch_delay":         {`7`, 7 * s, func(r *Run) any { return r.WatchDelay }},
		"admin":               {`"127.0.0.1:9"`, "127.0.0.1:9", func(r *Run) any { return r.Admin }},
		"admin_token_file":    {`"token"`, "token", func(r *Run) any { return r.AdminToken }},
		"max_age":             {`"1h"`, time.Hour, func(r *Run) any { return r.MaxAge }},
		"max_memory":          {`"1.5G"`, int64(3 << 29), func(r *Run) any { n, _ := r.MaxMemoryBytes(); return n }},
		"max_requests":        {`7`, 7, func(r *Run) any { return r.MaxRequests }},
		"reload_every":        {`"24h"`, 24 * time.Hour, func(r *Run) any { return r.ReloadEvery }},
		"stall_kill":          {`7`, 7 * s, func(r *Run) any { return r.StallKill }},
		"health":              {`"/healthz"`, "/healthz", func(r *Run) any { return r.Health.Check }},
		"health_address":      {`"8000"`, "8000", func(r *Run) any { return r.Health.Address }},
		"health_host":         {`"a.example"`, "a.example", func(r *Run) any { return r.Health.Host }},
		"health_header":       {`["A: b"]`, []string{"A: b"}, func(r *Run) any { return r.Health.Headers }},
		"health_status":       {`["200", "300-399"]`, []string{"200", "300-399"}, func(r *Run) any { return r.Health.Status }},
		"health_body":         {`"ok"`, "ok", func(r *Run) any { return r.Health.Body }},
		"health_interval":     {`7`, 7 * s, func(r *Run) any { return r.Health.Interval }},
		"health_timeout":      {`7`, 7 * s, func(r *Run) any { return r.Health.Timeout }},
		"health_rise":         {`2`, 2, func(r *Run) any { return r.Health.Rise }},
		"health_fall":         {`7`, 7, func(r *Run) any { return r.Health.Fall }},
		"health_start_period": {`7`, 7 * s, func(r *Run) any { return r.Health.StartPeriod }},
		"hooks":               {`{ "worker.crashed" = "true" }`, []string{"worker.crashed=true"}, func(r *Run) any { return r.Hooks }},
		"hook_timeout":        {`7`, 7 * s, func(r *Run) any { return r.HookTimeout }},
		"log_prefix":          {`true`, true, func(r *Run) any { return r.LogPrefix }},
		"capture":             {`"files"`, "files", func(r *Run) any { return r.Capture }},
		"capture_dir":         {`"/var/log/x"`, "/var/log/x", func(r *Run) any { return r.CaptureDir }},
		"user":                {`"root"`, "root", func(r *Run) any { return r.User }},
		"group":               {`"root"`, "root", func(r *Run) any { return r.Group }},
		"umask":               {`"027"`, 0o27, func(r *Run) any { c, _ := r.Conditions(); return *c.Umask }},
		"nice":                {`5`, 5, func(r *Run) any { c, _ := r.Conditions(); return *c.Nice }},
		"rlimit":              {`["core=0"]`, uint64(0), func(r *Run) any { c, _ := r.Conditions(); return c.Limits[0].Hard }},
		"cpu_affinity":        {`"auto"`, true, func(r *Run) any { c, _ := r.Conditions(); return len(c.CPUs) > 0 }},
		"cgroup":              {`"workers"`, "workers", func(r *Run) any { return r.Cgroup }},
		"pdeathsig":           {`"TERM"`, "TERM", func(r *Run) any { return r.Death }},
		"command":             {`["node", "app.js"]`, []string{"node", "app.js"}, nil},
	}
	keys := func() []string {
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		NewRun().Flags(fs)
		return Keys(fs)
	}()
	for _, key := range keys {
		c, ok := cases[key]
		if !ok {
			t.Errorf("%s is a key, and no test has it", key)
			continue
		}
		r := NewRun()
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		r.Flags(fs)
		f, err := ParseFile("x.toml", []byte(key+" = "+c.toml+"\n"))
		if key == "hooks" {
			f, err = ParseFile("x.toml", []byte("[hooks]\nworker.crashed = \"true\"\n"))
		}
		if err == nil {
			err = f.Apply(fs)
		}
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		if c.get == nil {
			if !reflect.DeepEqual(f.Command, c.want) {
				t.Errorf("%s: %v, want %v", key, f.Command, c.want)
			}
			continue
		}
		if got := c.get(r); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", key, got, c.want)
		}
		if key != "umask" && key != "nice" && key != "rlimit" {
			if before := c.get(NewRun()); reflect.DeepEqual(before, c.want) {
				t.Errorf("%s: %v is its default, which shows nothing", key, before)
			}
		}
	}
	for key := range cases {
		if !slices.Contains(keys, key) {
			t.Errorf("%s is tested, and no key", key)
		}
	}
}

// An embedded handoff neither reads the variables of flags nor passes them on.
func TestForgetEnviron(t *testing.T) {
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	NewRun().Flags(fs)
	t.Setenv("HANDOFF_OWN", "kept")
	fs.VisitAll(func(f *pflag.Flag) { t.Setenv(EnvName(f.Name), "no such value") })
	ForgetEnviron(fs)
	fs.VisitAll(func(f *pflag.Flag) {
		if v, ok := os.LookupEnv(EnvName(f.Name)); ok {
			t.Errorf("%s=%s", EnvName(f.Name), v)
		}
	})
	if err := FromEnviron(fs); err != nil || os.Getenv("HANDOFF_OWN") != "kept" {
		t.Errorf("%v %q", err, os.Getenv("HANDOFF_OWN"))
	}
}

// A new key is one that root takes from everybody who can write the file, or one that it
// does not: somebody has to decide.
func TestEveryKeyIsHarmlessOrNot(t *testing.T) {
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	NewRun().Flags(fs)
	roots := []string{"hooks", "health", "allow", "listen", "pid_file", "log_file", "admin", "admin_token_file", "capture_dir", "user", "group", "nice", "rlimit", "cgroup"}
	for _, key := range Keys(fs) {
		if slices.Contains(harmless, key) == slices.Contains(roots, key) {
			t.Errorf("%s: is it root's to say?", key)
		}
	}
}
