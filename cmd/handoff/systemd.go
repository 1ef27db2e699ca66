package main

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"handoff/internal/config"
)

// systemdCommand prints a unit for a command line of `handoff run`.
func systemdCommand() *cobra.Command {
	cfg := config.NewRun()
	version := 0
	c := &cobra.Command{
		Use:   "systemd [flags] [--] COMMAND [ARG...]",
		Short: "Print a systemd unit for a command line",
		Long: `Print a hardened unit that runs the command line: the flags are those of
` + "`handoff run`" + `. --user and --group are the unit's: handoff itself runs as that user.

With it, systemctl reload reloads and waits for the outcome; systemd restarts handoff if it
dies, with the sockets and workers it has stored, and nothing is lost.`,
		Example: `  handoff systemd --user web -n 4 --cwd /srv/web/current server.js | sudo tee /etc/systemd/system/web.service
  sudo systemctl daemon-reload && sudo systemctl enable --now web`,
		RunE: func(c *cobra.Command, args []string) error {
			n := len(args)
			// They are the unit's, and not for each worker.
			user, group, both := strings.Cut(cfg.User, ":")
			if !both {
				group = cfg.Group
			}
			cfg.User, cfg.Group = "", ""
			what, err := configure(c.Flags(), cfg, args, false)
			if err != nil {
				return err
			}
			binary, err := binary()
			if err != nil {
				return failed{err}
			}
			name := string(what.Name)
			if version == 0 {
				version = systemdVersion()
			}
			// As they stand on the command line; a relative directory is no unit's.
			flags := without(os.Args[2:len(os.Args)-n], "--user", "--group", "--systemd-version", "--cwd", "--name", "-c", "--config")
			words := []string{binary, "run", "--name", name}
			if len(what.Config) > 0 { // absolute, all of it: the unit is read somewhere else
				words = append(words, "-c", string(what.Config))
			}
			if len(what.Config) == 0 || c.Flags().Changed("cwd") {
				words = append(words, "--cwd", string(what.Dir))
			}
			words = append(words, flags...)
			if rest := os.Args[len(os.Args)-n:]; n > 0 && !isDir(rest[0]) {
				words = append(words, rest...)
			}
			return template.Must(template.New("unit").Parse(unitText)).Execute(os.Stdout, map[string]any{
				"Name": name, "Exec": unitWords(words), "Dir": unitPath(string(what.Dir)), "User": user, "Group": group,
				"Version": version, "Start": int((cfg.ReadyTimeout + 10*time.Second).Seconds()),
				"Stop": int((cfg.DrainTimeout + cfg.KillGrace + 10*time.Second).Seconds()),
			})
		},
	}
	cfg.Flags(c.Flags())
	c.Flags().IntVar(&version, "systemd-version", 0, "`version` of systemd that the unit is for (default: this machine's)")
	c.Flags().SortFlags = false
	c.Flags().SetInterspersed(false)
	return c
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// systemdVersion asks systemctl; where there is none, it is one of Debian 12.
func systemdVersion() int {
	out, _ := exec.Command("systemctl", "--version").Output()
	f := strings.Fields(string(out)) // systemd 252 (252.39-1)
	if len(f) > 1 {
		if n, err := strconv.Atoi(f[1]); err == nil {
			return n
		}
	}
	return 252
}

// without takes flags with their values out of a command line, up to the program.
func without(words []string, flags ...string) []string {
	var left []string
	for i := 0; i < len(words); i++ {
		name, _, joined := strings.Cut(words[i], "=")
		drop := false
		for _, f := range flags {
			drop = drop || name == f
		}
		if !drop {
			left = append(left, words[i])
		} else if !joined {
			i++
		}
	}
	return left
}

// unitWords writes words as systemd.service(5) reads ExecStart=.
func unitWords(words []string) string {
	var quoted []string
	for _, w := range words {
		w = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$", "\n", `\n`, "\t", `\t`).Replace(w)
		if w == "" || strings.ContainsAny(w, " '\";") {
			w = `"` + w + `"`
		}
		quoted = append(quoted, w)
	}
	return strings.Join(quoted, " ")
}

func unitPath(p string) string { return strings.ReplaceAll(p, "%", "%%") }

const unitText = `# Made by handoff systemd. Put it in /etc/systemd/system/{{.Name}}.service, then
#   systemctl daemon-reload && systemctl enable --now {{.Name}}
# systemctl reload {{.Name}}: new code into service. systemctl stop: drain.
[Unit]
Description={{.Name}}, run by handoff
After=network.target
StartLimitIntervalSec=0

[Service]
ExecStart={{.Exec}}
WorkingDirectory={{.Dir}}
{{if .User}}User={{.User}}
{{end}}{{if .Group}}Group={{.Group}}
{{end}}{{if ge .Version 253}}Type=notify-reload
ReloadSignal=SIGUSR2
{{else}}Type=notify
ExecReload=/bin/kill -USR2 $MAINPID
{{end}}NotifyAccess=main
WatchdogSec=30
TimeoutStartSec={{.Start}}
TimeoutStopSec={{.Stop}}

# If handoff is killed it is started again at once, with its sockets and workers:
# systemd stores what is needed, and leaves the workers alone.
Restart=on-failure
RestartPreventExitStatus=2
RestartSec=100ms
KillMode=process
FileDescriptorStoreMax=16384
{{if lt .Version 254}}Environment=FDSTORE=16384
{{end}}
RuntimeDirectory=handoff/{{.Name}}
RuntimeDirectoryPreserve=restart
RuntimeDirectoryMode=0700
StateDirectory=handoff/{{.Name}}
LimitNOFILE=65536
NoNewPrivileges=yes
ProtectSystem=full
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
LockPersonality=yes
# A port below 1024:
#AmbientCapabilities=CAP_NET_BIND_SERVICE

[Install]
WantedBy=multi-user.target
`
