package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func completionCommand() *cobra.Command {
	plain := false
	c := &cobra.Command{
		Use:       "completion SHELL",
		Short:     "Print the completions of a shell",
		Long:      `Print what makes a shell complete handoff's commands, options and services.`,
		Example:   "  source <(handoff completion bash)     in ~/.bashrc\n  handoff completion fish > ~/.config/fish/completions/handoff.fish",
		Hidden:    true,
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("completion: name one shell: %s", strings.Join(c.ValidArgs, ", "))
			}
			root, out := c.Root(), os.Stdout
			switch shell := args[0]; {
			case shell == "bash":
				return bashCompletion(root, !plain)
			case shell == "zsh" && plain:
				return root.GenZshCompletionNoDesc(out)
			case shell == "zsh":
				return root.GenZshCompletion(out)
			case shell == "fish":
				return root.GenFishCompletion(out, !plain)
			case shell == "powershell" && plain:
				return root.GenPowerShellCompletion(out)
			case shell == "powershell":
				return root.GenPowerShellCompletionWithDesc(out)
			}
			return fmt.Errorf("completion: unknown shell %q; one of %s", args[0], strings.Join(c.ValidArgs, ", "))
		},
	}
	c.Flags().BoolVar(&plain, "no-descriptions", plain, "without descriptions of the words that are offered")
	return c
}

// bashCompletion prints cobra's script, which wants two functions of the package
// bash-completion, with what stands in for them where that is not installed.
func bashCompletion(root *cobra.Command, descriptions bool) error {
	var b bytes.Buffer
	if err := root.GenBashCompletionV2(&b, descriptions); err != nil {
		return failed{err}
	}
	script := strings.NewReplacer(
		`_get_comp_words_by_ref "$@" cur prev words cword`, `__handoff_words "$@"`,
		"_filedir", "__handoff_filedir").Replace(b.String())
	_, err := fmt.Print(plainBash + script)
	return err
}

// plainBash: bash splits words at = and : as well, and the program gets them whole. What
// stands behind the cursor does not count.
const plainBash = `__handoff_words()
{
    if declare -F _get_comp_words_by_ref >/dev/null 2>&1; then
        _get_comp_words_by_ref "$@" cur prev words cword
        return
    fi
    local line=${COMP_LINE:0:COMP_POINT} i word rest glued last=
    words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        rest=${line#"${line%%[![:space:]]*}"}
        glued=$([[ ${#rest} -eq ${#line} && ( $word == [=:]* || $last == [=:]* ) ]] && echo yes)
        ((i == COMP_CWORD)) && word=$rest
        if [[ -n $glued && ${#words[@]} -gt 0 ]]; then
            words[${#words[@]}-1]+=$word
        else
            words+=("$word")
        fi
        last=${COMP_WORDS[i]}
        line=${rest#"$word"}
    done
    cword=$((${#words[@]} - 1))
    cur=${words[cword]}
    prev=
    ((cword > 0)) && prev=${words[cword-1]}
    return 0
}

__handoff_filedir()
{
    if declare -F _filedir >/dev/null 2>&1; then
        _filedir "$@"
        return
    fi
    local kind=-f
    [[ ${1-} == -d ]] && kind=-d
    [[ $(type -t compopt) == builtin ]] && compopt -o filenames
    IFS=$'\n' read -ra COMPREPLY -d '' < <(compgen $kind -- "$cur")
}

`
