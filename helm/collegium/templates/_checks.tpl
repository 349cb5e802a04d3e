{{/* What a schema cannot say: values and configuration must fit each other. */}}

{{- define "collegium.checks" -}}
{{- $config := include "collegium.config" . | fromYaml -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" (include "collegium.fullname" .)) -}}
{{- fail (printf "the name %q is not a DNS label that starts with a letter: set fullnameOverride" (include "collegium.fullname" .)) -}}
{{- end -}}
{{- include "collegium.checkWriter" (dict "root" . "config" $config) -}}
{{- range $name, $expert := $config.experts -}}
{{- include "collegium.checkPlace" (dict "root" $ "key" (printf "experts.%s" $name) "part" $expert) -}}
{{- include "collegium.checkKey" (dict "root" $ "name" $name "expert" $expert) -}}
{{- end -}}
{{- range $name := list "server" "router" "retrieval" -}}
{{- include "collegium.checkPlace" (dict "root" $ "key" $name "part" (dig $name dict $config)) -}}
{{- end -}}
{{- end }}

{{/* One writer: the Retriever stays on the head, and there is never a second head. */}}
{{- define "collegium.checkWriter" -}}
{{- $values := .root.Values -}}
{{- if $values.persistence.enabled -}}
{{- if ne (include "collegium.upgradeStrategy" .root) "None" -}}
{{- fail "upgradeStrategy must be None with persistence.enabled: a second cluster would be a second writer of the same files" -}}
{{- end -}}
{{- if not (hasKey $values.head.customResources "collegium_state") -}}
{{- fail "head.customResources must offer collegium_state with persistence.enabled: it marks the pod that writes" -}}
{{- end -}}
{{- range $values.workerGroups -}}
{{- if hasKey (.customResources | default dict) "collegium_state" -}}
{{- fail (printf "workerGroups: %s must not offer collegium_state: only the head may write" .name) -}}
{{- end -}}
{{- end -}}
{{- $router := dig "router" "deployment" "resources" "custom" dict .config -}}
{{- if not (or $values.router.volume (hasKey $router "collegium_state")) -}}
{{- fail "config.router.deployment.resources.custom needs {collegium_state: 0.001} with persistence.enabled, or router.volume must be set: the Router follows its versions, and only the head mounts the state" -}}
{{- end -}}
{{- $server := dig "server" "deployment" "resources" "custom" dict .config -}}
{{- if and (dig "feedback" "enabled" true .config) (not (hasKey $server "collegium_state")) -}}
{{- fail "config.server.deployment.resources.custom needs {collegium_state: 0.001} with persistence.enabled, or config.feedback.enabled must be false: the Gateway writes the log of decisions, and only the head mounts the state" -}}
{{- end -}}
{{- if dig "retrieval" "enabled" true .config -}}
{{- $custom := dig "retrieval" "deployment" "resources" "custom" dict .config -}}
{{- if not (hasKey $custom "collegium_state") -}}
{{- fail "config.retrieval.deployment.resources.custom needs {collegium_state: 0.001} with persistence.enabled: the Retriever writes, and only the head mounts the state for writing" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Some pod must offer all that a replica reserves, or it would wait for ever. */}}
{{- define "collegium.checkPlace" -}}
{{- $key := .key -}}
{{- $needs := dig "deployment" "resources" dict .part -}}
{{- $custom := $needs.custom | default dict -}}
{{- $gpus := $needs.num_gpus | default 0 | float64 -}}
{{- $fits := dict "any" false -}}
{{- range $group := prepend .root.Values.workerGroups .root.Values.head -}}
{{- $offers := $group.customResources | default dict -}}
{{- $missing := list -}}
{{- range $name, $amount := $custom -}}
{{- if lt (index $offers $name | default 0 | float64) ($amount | float64) }}{{ $missing = append $missing $name }}{{ end -}}
{{- end -}}
{{- $has := index ($group.resources.limits | default dict) "nvidia.com/gpu" | default 0 | float64 -}}
{{- if and (not $missing) (ge $has $gpus) }}{{ $_ := set $fits "any" true }}{{ end -}}
{{- end -}}
{{- if not $fits.any -}}
{{- fail (printf "config.%s.deployment.resources asks for custom %s and num_gpus %v, which neither head nor any of workerGroups offers together (customResources, resources.limits.nvidia.com/gpu)" $key (toJson $custom) $gpus) -}}
{{- end -}}
{{- end }}

{{- define "collegium.checkKey" -}}
{{- $wanted := dig "api_key_env" "" (.expert.remote | default dict) -}}
{{- $given := keys .root.Values.env -}}
{{- range .root.Values.secretEnv }}{{ $given = append $given .name }}{{ end -}}
{{- if and $wanted (not (has $wanted $given)) -}}
{{- fail (printf "config.experts.%s.remote.api_key_env is %s, which is not in secretEnv: add {name: %s, secretName: ..., key: ...}" .name $wanted $wanted) -}}
{{- end -}}
{{- end }}
