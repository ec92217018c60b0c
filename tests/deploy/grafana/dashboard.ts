// A dashboard of the panels that we use: Grafana leaves a panel's options and custom fields open, its plugins say them.
import type { DataQuery } from "@grafana/schema";
import type { Options as BarChart, FieldConfig as BarChartField } from "@grafana/schema/dist/esm/raw/composable/barchart/panelcfg/x/BarChartPanelCfg_types.gen";
import type { Options as Heatmap, FieldConfig as HeatmapField } from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type { Options as Stat } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type { Options as Table, FieldConfig as TableField } from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type { Options as TimeSeries, FieldConfig as TimeSeriesField } from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";
import type { Dashboard, DataSourceRef, FieldConfig, FieldConfigSource, Panel, RowPanel } from "@grafana/schema/dist/esm/raw/dashboard/x/Dashboard_types.gen";

// of the data source for Prometheus, whose types are in no package of their own
interface PrometheusQuery extends Omit<DataQuery, "datasource"> {
  datasource: DataSourceRef;
  expr: string;
  legendFormat: string;
  instant: boolean;
  range: boolean;
  format?: "time_series" | "table" | "heatmap";
}

type PanelOf<Type extends string, Options, Custom> = Omit<Panel, "type" | "options" | "fieldConfig" | "targets"> & {
  type: Type;
  options?: Options;
  targets: PrometheusQuery[];
  fieldConfig?: Omit<FieldConfigSource, "defaults"> & { defaults: Omit<FieldConfig, "custom"> & { custom?: Custom } };
};

// by the name in a panel's `type`; `dashboard` is all around the panels
export type Checked = {
  dashboard: Omit<Dashboard, "panels"> & { panels: unknown[] };
  row: RowPanel;
  barchart: PanelOf<"barchart", BarChart, BarChartField>;
  heatmap: PanelOf<"heatmap", Heatmap, HeatmapField>;
  stat: PanelOf<"stat", Stat, never>;
  table: PanelOf<"table", Table, TableField>;
  timeseries: PanelOf<"timeseries", TimeSeries, TimeSeriesField>;
};
