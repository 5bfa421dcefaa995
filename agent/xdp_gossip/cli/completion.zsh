#compdef xdp-gossip
# SPDX-License-Identifier: MIT
# Completion of xdp-gossip for zsh: what may stand there is asked of the command itself.
_xdp_gossip() {
    local -a lines values texts ending
    local line
    lines=("${(@f)$(xdp-gossip completion zsh --words "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    case $lines[1] in
        ": files") _files && return ;;
        ": directories") _files -/ && return ;;
    esac
    for line in $lines; do
        [[ -n $line ]] || continue
        values+=("${line%%$'\t'*}")
        texts+=("${line/$'\t'/  -- }")
    done
    (( $#values )) || return 1
    # What ends in a slash goes on, and so does what ends in an equals sign.
    ending=()
    [[ $#values -eq 1 && $values[1] == *[/=] ]] && ending=(-S '')
    compadd "${ending[@]}" -l -d texts -- $values
}
if [[ $funcstack[1] == _xdp-gossip ]]; then
    _xdp_gossip "$@"
else
    compdef _xdp_gossip xdp-gossip
fi
