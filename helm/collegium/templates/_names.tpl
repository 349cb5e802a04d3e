{{/* Names and labels. */}}

{{- define "collegium.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- /* KubeRay appends to the name and refuses a RayService of more than 47 characters. */ -}}
{{- default $full .Values.fullnameOverride | trunc 47 | trimSuffix "-" -}}
{{- end }}

{{- define "collegium.serviceAccount" -}}
{{- $made := ternary (include "collegium.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $made .Values.serviceAccount.name -}}
{{- end }}

{{- define "collegium.authSecret" -}}
{{- default (printf "%s-ray-auth" (include "collegium.fullname" .)) .Values.auth.existingSecret -}}
{{- end }}

{{- define "collegium.claim" -}}
{{- default (printf "%s-state" (include "collegium.fullname" .)) .Values.persistence.existingClaim -}}
{{- end }}

{{- define "collegium.labels" -}}
app.kubernetes.io/name: collegium
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Labels of pods. KubeRay's own services select by app.kubernetes.io/name, so it is not set. */}}
{{- define "collegium.podSelector" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: collegium
{{- end }}
