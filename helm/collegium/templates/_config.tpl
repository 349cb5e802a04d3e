{{/* The service's own configuration and what follows from it. */}}

{{- define "collegium.config" -}}
{{- if .Values.config }}{{ toYaml .Values.config }}{{ else }}{{ .Files.Get "files/config.yaml" }}{{ end -}}
{{- end }}

{{- define "collegium.port" -}}
{{- dig "server" "port" 8000 (include "collegium.config" . | fromYaml) -}}
{{- end }}

{{- define "collegium.haproxy" -}}
{{- if dig "server" "haproxy" false (include "collegium.config" . | fromYaml) }}on{{ end -}}
{{- end }}

{{- define "collegium.upgradeStrategy" -}}
{{- default (ternary "None" "NewCluster" .Values.persistence.enabled) .Values.upgradeStrategy -}}
{{- end }}

{{/* The file that Ray Serve deploys. Pods listen on every interface: the network policy closes. */}}
{{- define "collegium.serveConfig" -}}
{{- $config := include "collegium.config" . | fromYaml -}}
proxy_location: EveryNode
http_options:
  host: 0.0.0.0
  port: {{ include "collegium.port" . }}
  request_timeout_s: {{ dig "server" "request_timeout_s" 600 $config }}
applications:
  - name: collegium
    route_prefix: /
    import_path: orchestrator.app:build
    args:
      config:
        {{- toYaml $config | nindent 8 }}
{{- end }}

{{/* Model sources to fetch, one a line: all of the configuration that are no paths. */}}
{{- define "collegium.modelSources" -}}
{{- $config := include "collegium.config" . | fromYaml -}}
{{- $sources := list (dig "encoder" "source" "all-minilm-l6-v2" $config) -}}
{{- range $config.models }}{{ $sources = append $sources .source }}{{ end -}}
{{- range uniq $sources | sortAlpha }}
{{- if not (regexMatch "^[/.~]" .) }}{{ . }}
{{ end }}
{{- end }}
{{- end }}

{{/* Environment of every Ray container. KubeRay copies it to its own init container. */}}
{{- define "collegium.env" -}}
{{- $server := dig "server" dict (include "collegium.config" . | fromYaml) -}}
- name: COLLEGIUM_HOME
  value: {{ .Values.home | quote }}
- name: HOME
  value: /home/collegium
- name: RAY_SERVE_THROUGHPUT_OPTIMIZED
  value: {{ ternary "1" "0" (dig "throughput_optimized" true $server) | quote }}
- name: RAY_SERVE_ENABLE_HA_PROXY
  value: {{ ternary "1" "0" (dig "haproxy" false $server) | quote }}
- name: RAY_USAGE_STATS_ENABLED
  value: "0"
- name: RAY_AUTH_MODE
  value: {{ .Values.auth.mode }}
{{- if eq .Values.auth.mode "token" }}
- name: RAY_AUTH_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ include "collegium.authSecret" . }}
      key: auth_token
{{- end }}
{{- with include "collegium.userEnv" . | trim }}
{{ . }}
{{- end }}
{{- end }}

{{- define "collegium.userEnv" -}}
{{- range $name, $value := .Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- range .Values.secretEnv }}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secretName }}
      key: {{ .key }}
{{- end }}
{{- end }}
