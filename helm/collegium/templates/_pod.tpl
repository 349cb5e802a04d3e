{{/* The pod of head and workers: dict "root" $, "role" head|worker, "group" the values of the group. */}}

{{- define "collegium.pod" -}}
{{- $values := .root.Values -}}
metadata:
  labels:
    {{- include "collegium.podSelector" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
  {{- with .group.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "collegium.serviceAccount" .root }}
  automountServiceAccountToken: {{ and (eq .role "head") $values.autoscaler.enabled }}
  {{- with .group.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- toYaml $values.podSecurityContext | nindent 4 }}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- range $key := list "nodeSelector" "tolerations" "affinity" }}
  {{- with index $.group $key }}
  {{ $key }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- if not $values.models.baked }}
  initContainers:
    {{- include "collegium.modelsContainer" . | nindent 4 }}
  {{- end }}
  containers:
    {{- include "collegium.rayContainer" . | nindent 4 }}
  volumes:
    {{- include "collegium.volumes" . | nindent 4 }}
{{- end }}

{{- define "collegium.container" -}}
{{- $values := .root.Values -}}
image: {{ printf "%s:%s" $values.image.repository (default .root.Chart.AppVersion $values.image.tag) | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
securityContext:
  {{- toYaml $values.containerSecurityContext | nindent 2 }}
volumeMounts:
  {{- include "collegium.mounts" . | nindent 2 }}
{{- end }}

{{- define "collegium.rayContainer" -}}
- name: ray-{{ .role }}
  {{- include "collegium.container" . | nindent 2 }}
  env:
    {{- include "collegium.env" .root | nindent 4 }}
  ports:
    {{- if eq .role "head" }}
    - {name: gcs-server, containerPort: 6379}
    - {name: dashboard, containerPort: 8265}
    {{- end }}
    - {name: metrics, containerPort: 8080}
    - {name: serve, containerPort: {{ include "collegium.port" .root }}}
  {{- include "collegium.probes" . | nindent 2 }}
  resources:
    {{- toYaml .group.resources | nindent 4 }}
{{- end }}

{{- define "collegium.modelsContainer" -}}
{{- $values := .root.Values -}}
{{- $all := splitList "\n" (include "collegium.modelSources" .root | trim) -}}
{{- $sources := coalesce .group.modelSources $values.models.sources $all -}}
- name: models
  {{- include "collegium.container" . | nindent 2 }}
  command: [collegium, models, pull]
  args:
    {{- toYaml $sources | nindent 4 }}
  env:
    - name: COLLEGIUM_HOME
      value: {{ $values.home | quote }}
    - name: HOME
      value: /home/collegium
    {{- with include "collegium.userEnv" .root | trim }}
    {{- . | nindent 4 }}
    {{- end }}
  resources:
    {{- toYaml $values.models.resources | nindent 4 }}
{{- end }}

{{/* Ray leaves its health endpoints open under token authentication; a worker is ready when its
     Serve proxy is, which is what the service sends requests to. */}}
{{- define "collegium.probes" -}}
{{- $probes := .root.Values.probes -}}
startupProbe:
  httpGet: {path: /api/healthz, port: 52365}
  periodSeconds: 5
  timeoutSeconds: {{ $probes.timeoutSeconds }}
  failureThreshold: {{ div (add $probes.startupSeconds 4) 5 }}
livenessProbe:
  httpGet: {path: /api/healthz, port: 52365}
  {{- include "collegium.probeTimes" $probes | nindent 2 }}
readinessProbe:
  {{- if eq .role "head" }}
  httpGet: {path: /api/healthz, port: 52365}
  {{- else }}
  httpGet: {path: /-/healthz, port: serve}
  {{- end }}
  {{- include "collegium.probeTimes" $probes | nindent 2 }}
{{- end }}

{{- define "collegium.probeTimes" -}}
periodSeconds: {{ .periodSeconds }}
timeoutSeconds: {{ .timeoutSeconds }}
failureThreshold: {{ .failureThreshold }}
{{- end }}

{{/* The claim is mounted for writing in the head alone. */}}
{{- define "collegium.mounts" -}}
{{- $values := .root.Values -}}
- {name: home, mountPath: {{ $values.home }}}
- {name: models, mountPath: {{ $values.home }}/models}
{{- if include "collegium.sharesAdapters" . }}
- {name: state, mountPath: {{ $values.home }}/adapters, subPath: adapters, readOnly: true}
{{- end }}
{{- if $values.router.volume }}
- {name: router, mountPath: {{ $values.home }}/router}
{{- end }}
- {name: user, mountPath: /home/collegium}
- {name: tmp, mountPath: /tmp}
- {name: shm, mountPath: /dev/shm}
{{- with $values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "collegium.volumes" -}}
{{- $values := .root.Values -}}
{{- $claim := dict "claimName" (include "collegium.claim" .root) -}}
- name: home
  {{- if and $values.persistence.enabled (eq .role "head") }}
  persistentVolumeClaim: {{ toJson $claim }}
  {{- else }}
  emptyDir: {}
  {{- end }}
- name: models
  {{- toYaml (default (dict "emptyDir" dict) $values.models.volume) | nindent 2 }}
{{- if include "collegium.sharesAdapters" . }}
- name: state
  persistentVolumeClaim: {{ toJson $claim }}
{{- end }}
{{- with $values.router.volume }}
- name: router
  {{- toYaml . | nindent 2 }}
{{- end }}
- name: user
  emptyDir: {}
- name: tmp
  emptyDir: {}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ $values.sharedMemorySize }}}
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "collegium.sharesAdapters" -}}
{{- $persistence := .root.Values.persistence -}}
{{- if and (eq .role "worker") $persistence.enabled (eq $persistence.accessMode "ReadWriteMany") }}yes{{ end -}}
{{- end }}

{{/* Ray's start-up parameters; the shell and Ray's autoscaler both read the quoted JSON. */}}
{{- define "collegium.rayStartParams" -}}
{{- $params := dict "object-store-memory" (.root.Values.objectStoreBytes | int64 | toString) -}}
{{- if eq .role "head" }}{{ $_ := set $params "dashboard-host" "0.0.0.0" }}{{ end -}}
{{- with .group.customResources }}{{ $_ := set $params "resources" (printf "'%s'" (toJson .)) }}{{ end -}}
{{- toYaml (merge (deepCopy (.group.rayStartParams | default dict)) $params) -}}
{{- end }}
